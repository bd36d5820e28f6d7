"""What the estimators are worth: on the real year, on years in which nothing happens, at size."""
