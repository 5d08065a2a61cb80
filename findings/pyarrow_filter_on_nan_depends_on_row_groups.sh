#!/bin/bash
# What one would guess: a filter that is given to pyarrow's Parquet reader returns the rows that the same filter returns in memory.
#   Statistics (min and max of each row group) only save time. The issue that they know nothing of NaN (apache/arrow #28074) is closed.
# What is true (pyarrow 26.0.1): where rows hold NaN, the answer depends on how the rows are cut into groups. Min and max are
#   written without NaN, and the reader takes them for all values of the group. is_nan(score) loses the NaN of a group whose other
#   values are all one value, and score != x loses it if that value is x. ~(score >= .5) loses the NaN of every group whose other
#   values are .5 or more. The same file without statistics gives the right rows.
# Date: 2026-11-30. Source: this run; ColumnChunkStatisticsAsExpression of cpp/src/arrow/dataset/file_parquet.cc. A part of it is
#   known: apache/arrow #34162 (is_null(nan_is_null=True) skips groups of NaN alone).
# Why it matters: NaN is how scorers mark a picture that could not be scored. A job that asks a table of scores for these, to score
#   them again, finds other pictures with other shards, and may find none. Write null instead of NaN, read the column and filter in
#   memory, or write no statistics for it.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install -q pyarrow==26.0.1
cd "$place"
venv/bin/python - <<'PYTHON'
import pyarrow
import pyarrow.compute as pc
import pyarrow.parquet as pq

print("pyarrow", pyarrow.__version__)
nan, score = float("nan"), pc.field("score")
table = pyarrow.table({"name": list("abcdefgh"), "score": [0.9, nan, 0.7, 0.1, 0.6, nan, 0.8, 0.2]})
ASKED = {"is_nan(score)": pc.is_nan(score), "score != .9": score != 0.9, "~(score >= .5)": ~(score >= 0.5)}
FILES = {"groups of 8": (8, True), "of 4": (4, True), "of 3": (3, True), "of 2": (2, True), "of 2, no statistics": (2, False)}
for name, (size, statistics) in FILES.items():
    pq.write_table(table, name, row_group_size=size, write_statistics=statistics)
found = {}
for asked, condition in ASKED.items():
    found[asked] = ["".join(table.filter(condition)["name"].to_pylist())]
    found[asked] += ["".join(pq.read_table(name, filters=condition)["name"].to_pylist()) for name in FILES]
    print(f"{asked}: " + ", ".join(f"{where} -> {rows or 'none'}" for where, rows in zip(["in memory", *FILES], found[asked])))
wanted = {
    "is_nan(score)": ["bf", "bf", "bf", "bf", "", "bf"],
    "score != .9": ["bcdefgh", "bcdefgh", "bcdefgh", "bcdefgh", "cdefgh", "bcdefgh"],
    "~(score >= .5)": ["bdfh", "bdfh", "bdfh", "dfh", "dh", "bdfh"],
}
nulls = table.set_column(1, "score", pc.if_else(pc.is_nan(table["score"]), None, table["score"]))
pq.write_table(nulls, "nulls", row_group_size=2)
rows = "".join(pq.read_table("nulls", filters=score.is_null())["name"].to_pylist())
print(f"with null instead of NaN, is_null(score) in groups of 2 -> {rows}")
assert rows == "bf" and found == wanted, "the behaviour has changed"
PYTHON
