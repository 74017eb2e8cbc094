"""`python -m mnist_lightning`."""

from mnist_lightning.cli.main import run

if __name__ == "__main__":
    run()
