"""The teachers of a study: read from directories, fitted with heads, or trained here."""
