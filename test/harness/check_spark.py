"""make check-spark: runs test/spark, which compares streams with Spark, on every
supported PostgreSQL."""

import subprocess
import sys

from harness import paths
from harness.postgres import VERSIONS


def main():
    results = [subprocess.run([sys.executable, "-m", "pytest", "-v", "--tb=short", "--timeout=900",
                               f"--postgres-version={version}", str(paths.TEST / "spark")], cwd=paths.SOURCE)
               for version in VERSIONS]
    return max(result.returncode for result in results)


if __name__ == "__main__":
    sys.exit(main())
