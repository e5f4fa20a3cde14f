"""What every model of a study is measured by."""
