"""Benchmarks written to a folder and opened."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from lavis.datasets.benchmarks.config import BenchmarkConfig
from lavis.datasets.benchmarks.dataset import BenchmarkDataset
from lavis.datasets.config import BuildInfo, SplitSource


def make(benchmark, data_dir, storage=(), **options):
    build_info = BuildInfo(annotations={"test": SplitSource(storage=list(storage))})
    config = BenchmarkConfig(
        benchmark=benchmark, data_dir=str(data_dir), build_info=build_info, **options
    )
    return BenchmarkDataset(config, "test")


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def write_parquet(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)


def questions(dataset):
    return [dataset.question(index) for index in range(len(dataset))]


def write_imagenetvc(folder):
    rows = {
        "color": "tench,What color is a tench?,green\r\ngoldfish,What color is it?,orange\r\n",
        "shape": "shark,What shape is its fin?,triangle\n",
        "material": "gown,What is it made of?,cotton\n",
        "component": "tench,Does it have fur?,no\n",
        "others": "a,Is it big?,yes\nb,How many legs?,4\nc,Long or short?,short\nd,,\n",
    }
    for name, lines in rows.items():
        (folder / f"{name}.csv").write_text(f"category,question,answer\r\n{lines}", newline="")
