# SPDX-License-Identifier: MIT
# A thin front for Meson.  BUILD=dir and CC=compiler work as usual.
BUILD ?= build

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	sh tools/deps.sh build
	meson setup $(BUILD)

# The main job on real input: PageRank on too little memory.
demo: all
	bash bench/demo.sh

# Every test, in at most twenty minutes on two cores.
check: all
	bash tools/check.sh $(BUILD)

# Real programs at their full size, torture as long as you like: STRESS_SECONDS a cell.
check-programs: all
	sh tools/deps.sh programs
	bash tests/programs/run.sh
stress: all
	$(BUILD)/tests/intercept/test_windows -o /usr/lib /usr/bin /usr/sbin
	STRESS=1 bash tests/run_torture.sh $(BUILD)

# The same suite under other kernels, in a virtual machine.
check-kernels: all
	sh tools/deps.sh kernels
	bash tests/kernels/run.sh $(BUILD)

# Every number that the documents claim.
bench: all
	sh tools/deps.sh bench
	python3 bench/bench.py all --zram

install: all
	ninja -C $(BUILD) install

clean:
	rm -rf $(BUILD)

.PHONY: all demo check check-programs stress check-kernels bench install clean
