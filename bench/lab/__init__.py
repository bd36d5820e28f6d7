"""The detection lab: drift detectors on streams of which it is known whether and when anything changed.

In the order of the data: `streams` makes quiet streams, `drifts` changes them, `frames` turns them into what
detectors read, `ours` and `others` let detectors watch (the programs in `peers/` run in environments of their
own), `results` keeps what they said, `score` counts, `report` writes the page, `plots` its pictures.
"""
