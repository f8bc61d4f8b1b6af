"""`python -m kaptain_zen` is the same as `kaptain-zen`."""

from kaptain_zen.cli.main import main

if __name__ == "__main__":
    main()
