"""Benchmarks, each a ratio from one run: ``python tests/benchmarks NAME ...`` (``--help`` lists them).

They are not tests and CI does not run them. Give the machine nothing else to do meanwhile.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path

import torch
from cohorts import cohorts
from embeddings import embeddings
from encoding import encoding
from fitting import fitting
from limits import limits
from parities import parities
from precisions import precisions
from processes import processes
from safety import readers, safety
from serving import serving
from supernets import discrete, supernet
from vocabularies import vocabularies

from autoctr.allocator import keep_freed_memory

BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "fit": fitting,
    "supernet": supernet,
    "discrete": discrete,
    "vocabulary": vocabularies,
    "cohort": cohorts,
    "processes": processes,
    "limits": limits,
    "encoding": encoding,
    "embeddings": embeddings,
    "precision": precisions,
    "parity": parities,
    "safety": safety,
    "readers": readers,
    "serve": serving,
}


def main() -> None:
    """Run the benchmarks that were asked for."""
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--data", type=Path, help="folder of MovieLens-1M (fit, encoding, serve)")
    parser.add_argument("--kuairand", type=Path, help="folder of KuaiRand-Pure (embeddings, precision, parity)")
    parser.add_argument("--peer", type=Path, help="python of an environment with fuxictr 2.3.10 (fit, encoding, serve)")
    parser.add_argument("--winner", type=Path, action="append", default=[], help="file with a candidate (serve)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (all but fit, encoding, embeddings, serve)")
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=("fp32", "bf16"),
        help="(fit, supernet, discrete, cohort, limits, parity)",
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    where = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else platform.processor()
    print(f"{where or platform.machine()}, {arguments.threads} threads, torch {torch.__version__}")
    for name in arguments.names:
        BENCHMARKS[name](arguments)


if __name__ == "__main__":
    main()
