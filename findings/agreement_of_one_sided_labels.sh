#!/bin/bash
# What one would guess: two reviewers who accept all of ten pictures get one answer from every package: chance-corrected agreement is
#   0 / 0, not defined.
# What is true: irrCAC 0.4.4 says that Krippendorff's alpha is 1.0, with the interval (1.0, 1), z = 999999999999999.9 and p = 0; told that
#   there is a category "reject", it raises ZeroDivisionError. Its kappa (Conger) is nan. krippendorff 0.9.0 raises ValueError on
#   the table of ratings and gives nan on the table of counts. scikit-learn 1.9.1 gives nan with a warning, and, where `labels` names
#   two of three categories, 1.0 for reviewers who disagree about the third: pictures with another label are left out in silence.
# Date: 2026-11-29. Source: this run; irrCAC/raw.py (krippendorff), krippendorff/krippendorff.py, sklearn cohen_kappa_score.
# Why it matters: lots of good pictures give such labels often. A bootstrap over them mixes nan, exceptions and ones, and a report says
#   "alpha 1.0, p = 0" of two people who pressed one key.
# Exits with 1 if the behaviour has changed.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3.11 -m venv "$place/old" # irrCAC pins numpy below 2
"$place/old/bin/python" -m pip install -q irrCAC==0.4.4
python3.11 -m venv "$place/new"
"$place/new/bin/python" -m pip install -q krippendorff==0.9.0 scikit-learn==1.9.1
"$place/old/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import pandas as pd
from irrCAC.raw import CAC

print("irrCAC", version("irrCAC"))
labels = pd.DataFrame({"anna": ["accept"] * 10, "ben": ["accept"] * 10})
alpha = CAC(labels).krippendorff()["est"]
print("alpha", alpha)
kappa = CAC(labels).conger()["est"]["coefficient_value"]
print("kappa", kappa)
try:
    CAC(labels, categories=["accept", "reject"]).krippendorff()
    raised = "nothing"
except ZeroDivisionError as error:
    raised = repr(error)
print("alpha, two categories given: raises", raised)
seen = alpha["coefficient_value"] == 1 and alpha["p_value"] == 0 and kappa != kappa and raised != "nothing"
raise SystemExit(0 if seen else 1)
PYTHON
"$place/new/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import krippendorff
from sklearn.metrics import cohen_kappa_score

print("krippendorff", version("krippendorff"), "scikit-learn", version("scikit-learn"))
try:
    krippendorff.alpha([[0] * 10, [0] * 10], level_of_measurement="nominal")
    raised = "nothing"
except ValueError as error:
    raised = repr(error)
print("alpha of ratings: raises", raised)
counted = krippendorff.alpha(value_counts=[[2, 0]] * 10, level_of_measurement="nominal")
print("alpha of counts", counted)
kappa = cohen_kappa_score([0] * 10, [0] * 10)
print("kappa", kappa)
partly = cohen_kappa_score([0, 1, 2, 2], [0, 1, 2, 1], labels=[0, 1])
print("kappa of [0, 1, 2, 2] and [0, 1, 2, 1] with labels=[0, 1]:", partly)
raise SystemExit(0 if raised != "nothing" and counted != counted and kappa != kappa and partly == 1 else 1)
PYTHON
