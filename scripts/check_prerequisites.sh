#!/bin/sh
# Checks what `make setup` cannot install itself: Python and Java.
#
#   check_prerequisites.sh [python] [java]      (both, when none is named)
#
# Reads PYTHON (the interpreter to use, python3 when unset), JAVA_HOME and PATH. Silent when all
# is well; otherwise one line on standard error for each failing check, and exit status 1. Runs
# no other program than the two it checks.

set -u

failed=0

# What is needed, where to get it, and what was found ($1, $2, $3).
complain() {
    printf '%s: install %s; found: %s\n' "$1" "$2" "$3" >&2
    failed=1
}

check_python() {
    python=${PYTHON:-python3}
    need='Python 3.11, 3.12 or 3.13 is needed'
    get='python3 and python3-venv (Debian 12 or 13, Ubuntu 24.04) or python@3.12 (Homebrew), or name one with PYTHON=/path/to/python'

    if ! command -v "$python" >/dev/null 2>&1; then
        complain "$need" "$get" "none (no command '$python')"
        return
    fi
    if ! facts=$("$python" -c 'import platform, sys; print("%d.%d %s-%s" % (sys.version_info[0], sys.version_info[1], sys.platform, platform.machine()))' 2>/dev/null); then
        complain "$need" "$get" "'$python', which does not run"
        return
    fi
    version=${facts%% *}
    machine=${facts#* }

    case $machine in
    darwin-x86_64)
        # The last PyTorch for Intel Macs, 2.2.2, has no build for Python 3.13.
        need='Python 3.11 or 3.12 is needed on an Intel Mac'
        supported='3.11 3.12'
        ;;
    *) supported='3.11 3.12 3.13' ;;
    esac
    case " $supported " in
    *" $version "*) ;;
    *)
        complain "$need" "$get" "Python $version ('$python')"
        return
        ;;
    esac

    if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        complain "Python's venv module is needed" 'python3-venv (Debian/Ubuntu)' \
            "Python $version ('$python') without it"
    fi
}

check_java() {
    need='Java 17 or 21 is needed for Spark'
    get='openjdk-17-jre-headless (Debian/Ubuntu) or temurin@17 (Homebrew)'

    # Spark looks in JAVA_HOME alone when it is set, so this does too.
    if [ -n "${JAVA_HOME:-}" ]; then
        java=$JAVA_HOME/bin/java
        if [ ! -x "$java" ]; then
            complain "$need" "$get, or correct JAVA_HOME" "none (JAVA_HOME is '$JAVA_HOME', which has no bin/java)"
            return
        fi
    elif ! java=$(command -v java); then
        complain "$need" "$get" 'none'
        return
    fi

    # The version is the quoted part of a line such as: openjdk version "17.0.15" 2025-04-15.
    # A Mac without Java has a java that prints a message with no such line.
    output=$("$java" -version 2>&1) || output=
    case $output in
    *'version "'*)
        version=${output#*version \"}
        version=${version%%\"*}
        ;;
    *)
        complain "$need" "$get" "none ('$java' does not run)"
        return
        ;;
    esac
    major=${version#1.} # Java 8 calls itself 1.8.0.
    major=${major%%[!0-9]*}
    case $major in
    17 | 21) ;;
    *) complain "$need" "$get" "Java $version ('$java')" ;;
    esac
}

[ "$#" -gt 0 ] || set -- python java
for name in "$@"; do
    case $name in
    python) check_python ;;
    java) check_java ;;
    *)
        printf "check_prerequisites.sh: no check is called '%s'; there are: python, java\n" "$name" >&2
        exit 2
        ;;
    esac
done
exit "$failed"
