"""The `kaptain-zen` command."""
