#!/bin/bash
# Installs what is missing on this machine, then runs a Python module of test/:
#
#     test/run.sh harness.check
#
# Debian packages need root or sudo and are touched only when one is missing;
# the rest goes to a cache directory of the user: a Python environment and the
# jars of Apache Kafka.  KAFKA_INGEST_PACKAGES: Debian packages beside those
# that everything needs.  PEERS="spark debezium": other programs that do
# what the extension does (test/peers).  POSTGRES_VERSIONS="15 16": other versions than the usual
# two (test/harness/postgres.py).  LIBRDKAFKA=newest: those from wheels are built and run with
# the newest librdkafka (test/harness/librdkafka.py).  Says what it does only when it does something.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
home=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
export KAFKA_INGEST_CACHE=${KAFKA_INGEST_CACHE:-${XDG_CACHE_HOME:-$home/.cache}/kafka_ingest}
environment=$KAFKA_INGEST_CACHE/venv
jars=$KAFKA_INGEST_CACHE/kafka-4.1.0

# The PostgreSQL that Debian has packages of
case $(. /etc/os-release && echo "${VERSION_CODENAME:-}") in
	trixie) export KAFKA_INGEST_DEBIAN_POSTGRES=17 ;;
	*) export KAFKA_INGEST_DEBIAN_POSTGRES=15 ;;
esac

say() { echo "run.sh: $*" >&2; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

install_packages() {
	local package missing=()
	for package in gcc make pkg-config python3 python3-venv clang-format \
		postgresql-$KAFKA_INGEST_DEBIAN_POSTGRES postgresql-server-dev-$KAFKA_INGEST_DEBIAN_POSTGRES librdkafka-dev libcjson-dev ${KAFKA_INGEST_PACKAGES:-}; do
		installed "$package" || missing+=("$package")
	done
	command -v java >/dev/null || missing+=(default-jre-headless)
	[ -d "$jars" ] && peers_are_installed || command -v mvn >/dev/null || missing+=(maven)
	[ ${#missing[@]} -gt 0 ] || return 0

	local as_root=()
	if [ "$(id -u)" != 0 ]; then
		as_root=(sudo)
		if ! command -v sudo >/dev/null || ! { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
			say "these Debian packages are missing, and installing them needs root:"
			say "    apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
			exit 1
		fi
	fi
	say "installing ${missing[*]}"
	as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
	"${as_root[@]}" update >&2
	if ! "${as_root[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >&2; then
		say "the packages could not be installed; they are those of Debian 12 (bookworm) and 13 (trixie)"
		exit 1
	fi
}

# A peer is there when its jars were made from the list in test/peers, and its Python packages, too.
peer_is_installed() {
	local list
	for list in "$here/peers/$1"-pom.xml "$here/peers/$1"-requirements.txt; do
		[ ! -e "$list" ] || cmp -s "$list" "$KAFKA_INGEST_CACHE/peers/$1/${list##*/}" || return 1
	done
}

peers_are_installed() {
	local peer
	for peer in ${PEERS:-}; do
		peer_is_installed "$peer" || return 1
	done
}

install_peers() {
	local peer directory
	for peer in ${PEERS:-}; do
		if [ ! -e "$here/peers/$peer-pom.xml" ]; then
			say "there is no peer \"$peer\"; PEERS may have: $(cd "$here/peers" && echo *-pom.xml | sed 's/-pom\.xml//g')"
			exit 1
		fi
		peer_is_installed "$peer" && continue
		directory=$KAFKA_INGEST_CACHE/peers/$peer
		say "fetching $peer into $directory"
		rm -rf "$directory"
		mkdir -p "$directory"
		mvn -q -B -f "$here/peers/$peer-pom.xml" dependency:copy-dependencies \
			-DincludeScope=runtime -DoutputDirectory="$directory/jars" </dev/null >&2
		if [ -e "$here/peers/$peer-requirements.txt" ]; then
			new_python_environment "$directory/venv" "$here/peers/$peer-requirements.txt"
			cp "$here/peers/$peer-requirements.txt" "$directory/"
		fi
		cp "$here/peers/$peer-pom.xml" "$directory/"
	done
}

# DIRECTORY LIST: an environment with the packages of the list.
new_python_environment() {
	local python=/usr/bin/python3
	[ -x "$python" ] || python=python3
	"$python" -m venv --clear "$1"
	"$1/bin/pip" install --quiet --disable-pip-version-check -r "$2" >&2
}

install_python_environment() {
	local list version
	if ! cmp -s "$here/requirements.txt" "$environment/requirements.txt"; then
		say "installing Python packages into $environment"
		new_python_environment "$environment" "$here/requirements.txt"
		cp "$here/requirements.txt" "$environment/requirements.txt"
	fi
	# of versions of PostgreSQL that are not always there
	for version in ${POSTGRES_VERSIONS:-}; do
		list=requirements-postgres$version.txt
		if [ -e "$here/$list" ] && ! cmp -s "$here/$list" "$environment/$list"; then
			say "installing PostgreSQL $version into $environment"
			"$environment/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/$list" >&2
			cp "$here/$list" "$environment/"
		fi
	done
}

install_kafka() {
	[ ! -d "$jars" ] || return 0
	say "fetching Apache Kafka's jars into $jars"
	rm -rf "$jars.part"
	mvn -q -B -f "$here/harness/kafka-pom.xml" dependency:copy-dependencies \
		-DoutputDirectory="$jars.part" </dev/null >&2
	mv "$jars.part" "$jars"
}

mkdir -p "$KAFKA_INGEST_CACHE"
{
	flock 9
	install_packages
	install_python_environment
	install_kafka
	install_peers
} 9>"$KAFKA_INGEST_CACHE/lock"

export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
exec "$environment/bin/python" -m "$@"
