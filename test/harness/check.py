"""make check: builds on every supported PostgreSQL, runs the suites on each, and
ends with one line "N passed, N failed".

    test/run.sh harness.check [main] [faults]

main: sql/, test/isolation/, test/, and a short measurement; faults: test/faults/ and a short fuzz.
sanitize: sql/, test/isolation/ and test/ on one version, with AddressSanitizer and
UndefinedBehaviorSanitizer.
"""

import collections
import contextlib
import re
import subprocess
import sys
import threading
import traceback
import xml.etree.ElementTree as ElementTree

from bench import regression
from fuzz import targets as fuzz_targets
from harness import build, paths
from harness.postgres import VERSIONS, Cluster, Installation
from harness.processes import clean_up_at_exit, stop_all

PYTEST_LIMIT = 90 * 60  # seconds; 20 to 25 minutes are usual
# Tests mostly wait: two processes share their files, each with servers of its own.
PARALLEL = ["--numprocesses=2", "--dist=loadfile"]
FUZZ_SECONDS = 8  # for each target
SHOWN_LINES = 80  # of each text about a failure, in the list at the end
_output = threading.Lock()
_pytests = []


def say(version, text):
    with _output:
        print(f"[{version}] {text}", flush=True)


class Tally(collections.Counter):
    def __init__(self):
        super().__init__()
        self.failures = []

    def passed(self, version, what):
        self["passed"] += 1
        say(version, f"ok       {what}")

    def failed(self, version, what, *details):
        """details: texts that say why, for the list at the end."""
        self["failed"] += 1
        self.failures.append((version, what, details))
        say(version, f"FAILED   {what}")

    def show_failures(self):
        """Once more, where they are found: what is printed before is long."""
        for version, what, details in self.failures:
            shown = [line for detail in details for line in detail.splitlines()[-SHOWN_LINES:]]
            say(version, "\n".join([f"FAILED   {what}", *shown]))

    def line(self):
        text = f"{self['passed']} passed, {self['failed']} failed"
        return text + (f", {self['skipped']} skipped" if self["skipped"] else "")


def check_format(tally):
    sources = sorted(map(str, (paths.SOURCE / "src").glob("*.[ch]")))
    result = subprocess.run(["clang-format", "--dry-run", "-Werror", *sources], cwd=paths.SOURCE,
                            stderr=subprocess.PIPE, text=True)
    if result.returncode == 0:
        tally.passed("--", "format of src/")
    else:
        print("\n".join(result.stderr.splitlines()[:20]), file=sys.stderr)
        tally.failed("--", 'format of src/: run "make format"')


def check_version(version, run_directory, tally, suites):
    """The suites on one PostgreSQL version."""
    try:
        installation = build.build(version, run_directory, sanitized="sanitize" in suites)
    except build.BuildError as error:
        tally.failed(version, str(error), text_of(run_directory.logs / f"build{version}.log"))
        return
    tally.passed(version, "build without warnings")
    if "main" in suites or "sanitize" in suites:
        tests = threading.Thread(target=run_pytest, args=(version, installation, run_directory, tally, MAIN), daemon=True)
        tests.start()
        try:
            run_pg_regress(version, installation, run_directory, tally)
        finally:
            tests.join()
    if "faults" in suites:
        run_pytest(version, installation, run_directory, tally, FAULTS)


def run_pg_regress(version, installation, run_directory, tally):
    tree = build.source_tree(run_directory, version)
    specs = paths.TEST / "isolation"
    if not any(tree.glob("expected/*.out")) and not specs.exists():
        return
    cluster = Cluster(installation, run_directory, f"regress{version}-server").create().start()
    environment = {"PGHOST": str(cluster.directory), "PGPORT": str(cluster.port), "PGUSER": "postgres"}
    log = run_directory.logs / f"regress{version}.log"
    with contextlib.suppress(subprocess.CalledProcessError):
        build.make(installation, tree, log, "installcheck", environment=environment)
    count_pg_regress(version, "sql", log, tree / "regression.diffs", tally)
    if specs.exists():
        log = run_directory.logs / f"isolation{version}.log"
        pgxs = installation.run("pg_config", "--pgxs").stdout.strip().rsplit("/", 2)[0]
        output = run_directory.subdirectory(f"isolation{version}")
        with open(log, "wb") as file:
            subprocess.run(
                [f"{pgxs}/test/isolation/pg_isolation_regress", f"--bindir={installation.bin}",
                 f"--inputdir={specs}", f"--outputdir={output}", "--dbname=isolation",
                 *sorted(spec.stem for spec in (specs / "specs").glob("*.spec"))],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                env={**environment, **installation.environment(), "PATH": "/usr/bin:/bin"})
        count_pg_regress(version, "isolation", log, output / "regression.diffs", tally)
    cluster.remove()


def text_of(path):
    return path.read_text(errors="replace") if path.exists() else ""


def count_pg_regress(version, suite, log, differences, tally):
    """Reads the results in both of pg_regress's formats (TAP since 16)."""
    text = log.read_text(errors="replace")
    results = [(good == "ok", name) for good, name in re.findall(r"^(ok|not ok) +\d+ +[-+] (\S+)", text, re.M)]
    results += [(result == "ok", name) for name, result in
                re.findall(r"^(?:test|   +) *(\S+) +\.\.\. (ok|FAILED)", text, re.M)]
    for good, name in results:
        if good:
            tally.passed(version, f"{suite}/{name}")
        else:
            tally.failed(version, f"{suite}/{name}", differences_of(name, text_of(differences)))
    if not results:
        tally.failed(version, f"{suite}: pg_regress ran nothing", text_of(log))


def differences_of(test, text):
    """The part of regression.diffs that is about one test."""
    parts = re.split(r"^(?=diff )", text, flags=re.M)
    return "".join(part for part in parts if f"/{test}.out" in part.split("\n", 1)[0])


MAIN = ("pytest", [f"--ignore={paths.TEST / 'faults'}", str(paths.TEST)])
FAULTS = ("faults", [str(paths.TEST / "faults")])


def run_pytest(version, installation, run_directory, tally, suite):
    name, arguments = suite
    report = run_directory.path / f"{name}{version}.xml"
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-v", "--tb=short", "--color=no", "-rfE",
         f"--junitxml={report}", f"--postgres-version={version}", f"--installation={installation.directory}",
         *(["--sanitize"] if installation.sanitizer_log else PARALLEL), *arguments],
        cwd=paths.SOURCE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace")
    _pytests.append(process)

    def out_of_time():
        tally.failed(version, f"pytest took more than {PYTEST_LIMIT // 60} minutes")
        process.terminate()

    limit = threading.Timer(PYTEST_LIMIT, out_of_time)
    limit.start()
    for line in process.stdout:
        say(version, line.rstrip())
    process.wait()
    limit.cancel()
    try:
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        tally.failed(version, f"{name} did not finish")
        return
    for case in cases:
        bad = [element for element in case if element.tag in ("failure", "error")]
        logs = [section.get("value") for section in case.iter("property")]
        for element in bad:
            tally.failed(version, f"{case.get('classname')}::{case.get('name')} ({element.tag})", element.text or "", *logs)
        if not bad:
            tally["passed" if case.find("skipped") is None else "skipped"] += 1
    if process.returncode not in (0, 1) or not cases:
        tally.failed(version, f"{name}: exit status {process.returncode}")


def check_speed(run_directory, tally):
    """At the end, when nothing else of ours runs; on one version."""
    version = VERSIONS[0]
    try:
        installation = Installation(version, build.directory(run_directory, version))
        ratio = regression.ratio_to_copy(installation, run_directory, lambda text: say(version, text))
    except Exception:
        tally.failed(version, "speed: the measurement broke off", traceback.format_exc())
        return
    what = f"speed: a stream has {ratio:.2f} of COPY's rows/s, at least {regression.FLOOR} is asked"
    (tally.passed if ratio >= regression.FLOOR else tally.failed)(version, what)


def fuzz(run_directory, tally):
    """Every target on its seeds and what comes near them."""
    for name in fuzz_targets.TARGETS:
        try:
            good = fuzz_targets.run_target(name, run_directory.path, seed=1, seconds=FUZZ_SECONDS)
        except subprocess.CalledProcessError:
            good = False
        (tally.passed if good else tally.failed)("--", f"fuzz/{name}")


def main():
    clean_up_at_exit()
    tally = Tally()
    suites = sys.argv[1:] or ["main"]
    run_directory = paths.RunDirectory()

    def guarded(version):
        try:
            check_version(version, run_directory, tally, suites)
        except Exception:
            tally.failed(version, "the suite broke off", traceback.format_exc())

    try:
        if "main" in suites:
            check_format(tally)
        if "faults" in suites:
            fuzz(run_directory, tally)
        versions = [build.SANITIZED_VERSION] if "sanitize" in suites else VERSIONS
        threads = [threading.Thread(target=guarded, args=(version,), daemon=True) for version in versions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if "main" in suites:
            check_speed(run_directory, tally)
        good = tally["passed"] > 0 and tally["failed"] == 0
        if not good:
            tally.show_failures()
            print(f"logs: {run_directory.keep_logs('check').parent}", flush=True)
    except KeyboardInterrupt:
        tally.failed("--", "interrupted")
        good = False
    finally:
        for process in _pytests:
            if process.poll() is None:
                process.terminate()
                process.wait()
        stop_all()
        run_directory.remove()
    print(tally.line(), flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
