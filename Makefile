# Runs with GNU make 3.81 or newer, the one on macOS included.

PYTHON ?= python3
DEMO_OUTPUT ?= demo-output
LAKE_OUTPUT ?= lake-output
# Processes that run the tests; each takes about 6 GB with all that it starts.
TEST_WORKERS ?= 2
# Patience for the large wheels (PyTorch, CUDA) on a slow line, in seconds.
UV_HTTP_TIMEOUT ?= 300

# The environment comes from the lock and the chosen Python, never from a Python that uv fetches.
export UV_PYTHON_DOWNLOADS := never
export UV_HTTP_TIMEOUT
export PYTHON PHOTOS LISTINGS TAXONOMY DEMO_OUTPUT
# Another Spark, or its Python code, must not stand in for the one in .venv.
unexport SPARK_HOME PYTHONPATH PYTHONHOME
# Without bytecode every process compiles torch anew, which takes longer than most tests.
unexport PYTHONDONTWRITEBYTECODE

CHECK := sh scripts/check_prerequisites.sh
INSTALL := sh scripts/install_lock.sh
UV := .uv/bin/uv
BIN := .venv/bin
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header -q
# What differs from one Spark to another: sessions, workers, UDFs, tables of photos.
ANY_SPARK := tests/lake/test_spark_versions.py tests/e2e/test_demo.py::test_samples_and_a_rerun \
	$(addprefix tests/spark/test_,session.py manifest_reading.py photo_count.py udf.py \
	worker_reuse.py categorize_store.py)

# $(call option,--flag,VARIABLE): adds the flag and the variable's value, where it is set, to the
# shell's arguments. A leading ~/ is expanded, which zsh does not do in `make demo PHOTOS=~/shoes`.
option = case "$$$(2)" in \
	"") ;; \
	"~/"*) set -- "$$@" $(1) "$$HOME/$${$(2)\#??}" ;; \
	*) set -- "$$@" $(1) "$$$(2)" ;; \
	esac

# $(call above,ENVIRONMENT): lets it import the packages of .venv too, below its own.
above = packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -c "$$packages" > "$$($(1)/bin/python -c "$$packages")/lock.pth"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup demo lake airflow review unit test test-lake soak bench lint audit format package lock clean

help: ## list the targets
	@echo "Usage: make TARGET [VARIABLE=value]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-9s  %s\n", $$1, $$2 }' Makefile

setup: .venv/.stamp ## install Python packages into .venv (PYTHON=python3.12)

demo: setup ## categorize samples, or yours (PHOTOS=folder LISTINGS=csv TAXONOMY=csv)
	@$(CHECK) java
	@set --; \
	$(call option,--photos,PHOTOS); \
	$(call option,--listings,LISTINGS); \
	$(call option,--taxonomy,TAXONOMY); \
	$(call option,--output,DEMO_OUTPUT); \
	exec $(BIN)/python -m demo "$$@"

lake: setup .jars/.stamp .venv-lake/.stamp ## categorize samples from table to table, on an S3 server of its own
	@$(CHECK) java
	@exec $(BIN)/python -m demo.lake --output $(LAKE_OUTPUT)

airflow: setup .venv-airflow/.stamp ## start Airflow with the DAGs and the demo's data (AIRFLOW_PORT=8080)
	@$(CHECK) java
	@exec $(BIN)/python -m scripts.airflow_standalone

review: setup .venv-review/.stamp ## start Label Studio with the demo's review queue (REVIEW_PORT=8081)
	@$(CHECK) java
	@exec $(BIN)/python -m scripts.review_standalone

unit: setup ## run the unit tests, two to six minutes (PYTEST_ARGS="-k calibration")
	$(BIN)/python -m pytest -n $(TEST_WORKERS) tests/unit $(PYTEST_ARGS)

test: setup .venv-airflow/.stamp .venv-review/.stamp ## run the tests, 20 to 40 minutes (TEST_WORKERS=2)
	@$(CHECK) java
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m "not lake" $(PYTEST_ARGS)

LAKE := setup .venv-airflow/.stamp .venv-review/.stamp .venv-lake/.stamp .jars/.stamp
LAKE += .venv-spark-oldest/.stamp .venv-spark-newest/.stamp

# Beside the lock's Spark, the oldest and the newest one that the project runs on.
test-lake: $(LAKE) ## test tables, object stores, clusters and other Sparks, 25 minutes
	@$(CHECK) java
	$(BIN)/python -m pytest -n $(TEST_WORKERS) -m lake $(PYTEST_ARGS)
	.venv-spark-oldest/bin/python -m pytest -n $(TEST_WORKERS) $(ANY_SPARK)
	.venv-spark-newest/bin/python -m pytest -n $(TEST_WORKERS) $(ANY_SPARK)

soak: setup ## fuzz the readers of photos, models and taxonomies, about twenty minutes
	SEER_SOAK=1 $(BIN)/python -m pytest tests/unit -k fuzz

bench: setup .venv-peers/.stamp ## measure the speed, about twenty minutes (BENCH_ARGS=--quick)
	@$(CHECK) java
	$(BIN)/python -m benchmarks.throughput $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.peers $(BENCH_ARGS)

lint: setup .venv-airflow/.stamp ## check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/mypy -p scripts
	$(BIN)/mypy --python-executable .venv-airflow/bin/python airflow_dags
	$(BIN)/lint-imports

audit: setup .venv-airflow/.stamp .venv-review/.stamp .venv-lake/.stamp .venv-peers/.stamp .venv-audit/.stamp ## check the locks' packages: vulnerabilities, licences
	@$(BIN)/python scripts/audit.py

format: setup ## format the code and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Older build folders go first: setuptools would pack modules left in them.
package: setup ## build what a cluster needs into dist/: the code, and a Python that runs it
	rm -rf build seer_categories.egg-info dist/seer_categories-*.whl
	SOURCE_DATE_EPOCH=315532800 $(UV) build --quiet --wheel --no-build-isolation \
		--python $(BIN)/python --out-dir dist
	rm -rf build seer_categories.egg-info
	$(BIN)/python scripts/package_zip.py --output dist/seer-categories.zip
	$(BIN)/python scripts/package_environment.py --output dist/seer-environment.tar.gz
	@ls -l dist

# The pins in the files are kept where they still fit; LOCK_ARGS=--upgrade lifts them.
lock: .uv/.stamp ## pin the dependencies again (LOCK_ARGS="--upgrade-package rich")
	$(COMPILE) -c requirements/constraints.in pyproject.toml --extra dev \
		-o requirements/lock.txt $(LOCK_ARGS)
	$(COMPILE) requirements/spark-oldest.in -o requirements/spark-oldest.txt $(LOCK_ARGS)
	$(COMPILE) requirements/spark-newest.in -o requirements/spark-newest.txt $(LOCK_ARGS)
	$(COMPILE) requirements/airflow.in -o requirements/airflow.txt $(LOCK_ARGS)
	$(COMPILE) requirements/review.in -o requirements/review.txt $(LOCK_ARGS)
	$(COMPILE) requirements/lake.in -o requirements/lake.txt $(LOCK_ARGS)
	$(COMPILE) requirements/peers.in -o requirements/peers.txt $(LOCK_ARGS)
	$(COMPILE) requirements/audit.in -o requirements/audit.txt $(LOCK_ARGS)
	echo uv | $(COMPILE) - --no-annotate -o requirements/uv.txt $(LOCK_ARGS)

clean: ## remove builds, caches, demo-output, airflow-home and review-home (keeps .venv, mlflow.db and mlruns)
	rm -rf build dist seer_categories.egg-info demo-output lake-output airflow-home review-home
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf spark-warehouse metastore_db derby.log
	find . \( -name .git -o -name '.venv*' -o -name .uv \) -prune -o \
		-type d -name __pycache__ -prune -exec rm -rf {} +

# uv itself, by hash: one on the PATH is never used.
.uv/.stamp: requirements/uv.txt
	@$(CHECK)
	@echo "Installing uv into .uv"
	@"$(PYTHON)" -m venv --clear .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: \
		--require-hashes -r requirements/uv.txt
	@touch $@

.venv/.stamp: requirements/lock.txt | .uv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv requirements/lock.txt
	@touch $@

# Java libraries, such as the table formats' connectors for Spark.
.jars/.stamp: requirements/jars.txt requirements/hadoop-jars.txt scripts/fetch_jars.py .venv/.stamp
	@$(CHECK) java
	@echo "Fetching Java libraries into .jars"
	@$(BIN)/python scripts/fetch_jars.py requirements/jars.txt .jars
	@$(BIN)/python scripts/fetch_jars.py requirements/hadoop-jars.txt .jars/hadoop
	@touch $@

# Airflow's Spark provider brings a pyspark of its own, which would overwrite the one in .venv.
.venv-airflow/.stamp: requirements/airflow.txt | .uv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-airflow requirements/airflow.txt
	@touch $@

# Another Spark, above the packages of .venv.
.venv-spark-%/.stamp: requirements/spark-%.txt | .venv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-spark-$* requirements/spark-$*.txt
	@$(call above,.venv-spark-$*)
	@touch $@

# What the speed is compared with, with the PyTorch and OpenVINO of .venv.
.venv-peers/.stamp: requirements/peers.txt | .venv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-peers requirements/peers.txt
	@$(call above,.venv-peers)
	@touch $@

.venv-review/.stamp: requirements/review.txt | .uv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-review requirements/review.txt
	@touch $@

.venv-lake/.stamp: requirements/lake.txt | .uv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-lake requirements/lake.txt
	@touch $@

.venv-audit/.stamp: requirements/audit.txt | .uv/.stamp
	@$(CHECK)
	@$(INSTALL) .venv-audit requirements/audit.txt
	@touch $@
