"""`python -m stemsplit` runs the command `stemsplit`."""

from stemsplit.cli import main

if __name__ == "__main__":
    main()
