"""The rows of the dashboard, each a list of panels; every module has a `panels`."""
