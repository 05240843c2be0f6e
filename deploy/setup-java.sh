#!/usr/bin/env bash
# Java 17 for Spark: the one on the PATH (or in JAVA_HOME) if it is new enough, else Debian's package.
# Prints where it is, or how to get it. Without Java everything but the engine `spark` works, and its tests say that they skip.
set -euo pipefail

major() { "$1" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1; }

for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java || true)"; do
  if [ -n "$java" ] && [ -x "$java" ]; then
    found=$(major "$java")
    if [ "${found:-0}" -ge 17 ]; then
      echo "setup: Java $found ($java)"
      exit 0
    fi
    echo "setup: Java ${found:-?} ($java) is too old, Spark 4 needs 17" >&2
  fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null
  echo "setup: Java $(major java) installed"
else
  echo "setup: no Java 17 and no right to install one: 'sudo apt-get install openjdk-17-jre-headless', or any JDK >= 17" \
    "on the PATH or in JAVA_HOME; the tests of Spark will say that they are skipped" >&2
fi
