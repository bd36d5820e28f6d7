"""BG/NBD and Gamma-Gamma on the CDNOW customers, beside the estimates that their authors published."""

from pathlib import Path

import numpy as np
import pandas as pd

from models import bg_nbd, gamma_gamma

PUBLISHED = bg_nbd.BgNbd(r=0.243, alpha=4.414, a=0.793, b=2.426)
PUBLISHED_VALUE = gamma_gamma.GammaGamma(p=6.25, q=3.74, gamma=15.44)
# Names under which the public copies of the summary give the columns x, t_x, T and the mean order.
NAMES = {"frequency": "x", "recency": "t_x", "monetary_value": "zbar"}


def check(path: Path) -> list[str]:
    """Return the estimates of a summary file (columns x, t_x, T, and zbar where orders' values are known).

    Raises SystemExit where the file has other columns.
    """
    customers = pd.read_csv(path, skipinitialspace=True).rename(columns=NAMES)
    customers.columns = customers.columns.str.strip()
    missing = {"x", "t_x", "T"} - set(customers.columns)
    if missing:
        raise SystemExit(f"{path} has no column {', '.join(sorted(missing))}")
    x, t_x, T = (customers[name].to_numpy(np.float64) for name in ("x", "t_x", "T"))
    fitted = bg_nbd.fit(x, t_x, T)
    best = bg_nbd.log_likelihood(fitted, x, t_x, T).sum()
    told = bg_nbd.log_likelihood(PUBLISHED, x, t_x, T).sum()
    lines = [
        f"{len(x):,} customers",
        f"BG/NBD fitted    {_shown(fitted)}, log-likelihood {best:.2f}",
        f"BG/NBD published {_shown(PUBLISHED)}, log-likelihood {told:.2f}",
    ]
    if "zbar" in customers:
        again = customers[customers["x"] > 0]
        value = gamma_gamma.fit(again["x"].to_numpy(np.float64), again["zbar"].to_numpy(np.float64))
        lines += [
            f"Gamma-Gamma fitted    {_shown(value)}",
            f"Gamma-Gamma published {_shown(PUBLISHED_VALUE)}",
        ]
    return lines


def _shown(params: bg_nbd.BgNbd | gamma_gamma.GammaGamma) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in params._asdict().items())
