"""What the documents tell to type works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import quiet_environment

ROOT = Path(__file__).parent.parent
