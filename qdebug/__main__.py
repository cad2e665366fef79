"""Entry for ``python -m qdebug``."""

from qdebug.cli import main

if __name__ == "__main__":
    main()
