from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_data import fake_dataset, fake_encoder

from autoctr.errors import UserError
from autoctr.training.basic_fields import basic_fields, user_field


def test_the_tiny_model_reads_the_user_and_the_item() -> None:
    statistics = fake_dataset(rows=60).statistics
    assert basic_fields(statistics, "user") == ("user", "item")
    assert basic_fields(statistics, "item") == ("item", "user")
    assert basic_fields(statistics, None) == basic_fields(statistics, "market") == ("user", "item")
    assert basic_fields(statistics, "user", ["item"]) == ("item",)
    with pytest.raises(UserError, match="'price' is not a categorical field; legal are user, item"):
        basic_fields(statistics, "user", ["price"])


@pytest.mark.parametrize(
    ("source", "field"), [("user", "user"), ("item", "item"), ("price", None), ("tags", None), (None, None)]
)
def test_the_users_field_is_the_categorical_one_of_the_users_column(
    tmp_path: Path, source: str | None, field: str | None
) -> None:
    dataset = fake_dataset(tmp_path, rows=60)
    dataclasses.replace(fake_encoder(), user=source).save(tmp_path)
    assert user_field(dataset) == field
    assert user_field(dataclasses.replace(dataset, folder=None)) is None
