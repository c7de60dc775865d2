"""FuxiCTR's own training of a parallel DCN-v2, for the benchmarks; runs in an environment that has fuxictr 2.3.10.

    python peer_fuxictr.py FOLDER EPOCHS [TABLE]

FOLDER holds train.csv, valid.csv and test.csv with a column ``label`` and categorical columns. Prints JSON: seconds of
building the data set and of the fit with validation, and the test AUC; with TABLE, a csv file of the same columns, also
seconds of encoding it and of ``predict``.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor, build_dataset
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from fuxictr.pytorch.torch_utils import seed_everything

BATCH, EMBEDDING, RATE, CROSSES, DEEP = 4096, 16, 1e-3, 3, [256, 128, 64]


class ParallelDCNv2(BaseModel):
    """Crosses and a tower side by side over the same embeddings."""

    def __init__(self, features: FeatureMap, **options: Any) -> None:
        super().__init__(
            features, model_id="parallel", gpu=-1, embedding_regularizer=1e-6, net_regularizer=0, **options
        )
        width = features.sum_emb_out_dim()
        self.embedding = FeatureEmbedding(features, EMBEDDING)
        self.cross = CrossNetV2(width, CROSSES)
        self.tower = MLP_Block(
            input_dim=width, hidden_units=DEEP, hidden_activations="relu", output_activation=None, dropout_rates=0.1
        )
        self.head = torch.nn.Linear(width + DEEP[-1], 1)
        self.compile("adam", "binary_crossentropy", RATE)
        self.reset_parameters()
        self.model_to_device()

    def forward(self, inputs: Any) -> dict[str, torch.Tensor]:
        x = self.embedding(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.head(torch.cat([self.cross(x), self.tower(x)], -1)).sigmoid()}


def main(folder: Path, epochs: int, table: str | None = None) -> None:
    """Build, fit, test, predict."""
    logging.disable(logging.WARNING)
    with open(folder / "train.csv", encoding="utf-8") as file:
        columns = [name for name in file.readline().strip().split(",") if name != "label"]
    work = Path(tempfile.mkdtemp())
    (work / "peer").mkdir()
    options: dict[str, Any] = {
        "dataset_id": "peer", "data_root": str(work), "model_root": str(work), "data_format": "csv",
        "train_data": str(folder / "train.csv"), "valid_data": str(folder / "valid.csv"),
        "test_data": str(folder / "test.csv"), "min_categr_count": 1,
        "feature_cols": [{"name": columns, "active": True, "dtype": "str", "type": "categorical"}],
        "label_col": {"name": "label", "dtype": "float"}, "feature_specs": None, "use_features": None,
        "task": "binary_classification", "metrics": ["AUC", "logloss"], "monitor": "AUC", "monitor_mode": "max",
        "batch_size": BATCH, "embedding_dim": EMBEDDING, "epochs": epochs, "shuffle": True, "num_workers": 0,
        "save_best_only": True, "early_stop_patience": 99, "eval_steps": None, "group_id": None, "streaming": False,
        "debug_mode": False, "seed": 1, "verbose": 0,
    }  # fmt: skip
    started = time.perf_counter()
    processor = FeatureProcessor(**options)
    files = build_dataset(processor, **options)
    build = time.perf_counter() - started
    options |= dict(zip(("train_data", "valid_data", "test_data"), files, strict=True)) | {"data_format": "parquet"}
    seed_everything(1)
    features = FeatureMap("peer", str(work / "peer"))
    features.load(str(work / "peer" / "feature_map.json"), options)
    model = ParallelDCNv2(features, **options)
    train, valid = RankDataLoader(features, stage="train", **options)
    started = time.perf_counter()
    model.fit(train, validation_data=valid, **options)
    fit = time.perf_counter() - started
    tested = model.evaluate(RankDataLoader(features, stage="test", **options))
    found = {"build": build, "fit": fit, "auc": tested["AUC"]}
    if table is not None:
        # in this process, without the start of the workers that build_dataset uses
        started = time.perf_counter()
        raw = processor.preprocess(processor.read_data(table)).collect()
        encoded = processor.transform({name: raw[name].to_numpy() for name in raw.columns})
        pd.DataFrame(encoded).to_parquet(work / "table.parquet")
        found["encode"] = time.perf_counter() - started
        rows = RankDataLoader(features, stage="test", **{**options, "test_data": str(work / "table.parquet")})
        started = time.perf_counter()
        found["rows"] = len(model.predict(rows))
        found["predict"] = time.perf_counter() - started
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
