"""The runs of a study: what each is made of, leaves behind and is kept by."""
