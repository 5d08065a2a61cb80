"""The promise: "at most alpha of what leaves the house is a reject, with confidence 1 - delta", and its proof.

audit        a lot's labels in random order against the promise: betting, without replacement (pure)
envelope     a bound at every threshold at once from one random sample of labels (pure)
labels       decisions and labels, their streams kept apart (in labels.sqlite: store; from CSV: worksheet)
certificate  certificate.json: a lot's audit, and its check by a stranger
statements   what the metadata states of one trait of one picture: what an audit of traits asks about
calibration  calibration.json: a sample of labels that chooses the line of a policy's `calibrated` check
"""
