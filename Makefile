# Kvern: `make demo` shows it, `make test` proves it, `make bench` measures it, `make dist` packs it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help demo test crash bench bench-long dist build
help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

build: ## the release binary, target/release/kvern
	@scripts/need cargo cc
	cargo build --release --locked --package kvern

demo: ## photographs in, thumbnails out, the server killed in the middle
	@scripts/need cargo cc python3 pip
	@echo "Building kvern (the first time takes some minutes) …"
	@cargo build --release --locked --package kvern
	@examples/image-upload/demo.py "$(CURDIR)/target/release/kvern"

test: ## everything that must hold; prints the time of each part
	@scripts/test

crash: ## kill -9 at 300 random moments and at every write; KILLS=n POINTS=n|all SEED=n
	@scripts/need cargo cc python3 strace
	@cargo build --locked --package kvern
	@KILLS=$${KILLS:-300} POINTS=$${POINTS:-all} cargo test --package kvern-e2e --locked --test real -- \
	  --nocapture --test-threads=1 every_acknowledged_job_survives

bench: ## side by side with Nginx, the article's stack, Celery and BullMQ
	@scripts/need cargo cc python3
	@cargo build --release --locked --package kvern
	@bench/run

bench-long: ## with one and ten million queued jobs too
	@scripts/need cargo cc python3
	@cargo build --release --locked --package kvern
	@bench/run --long

dist: ## a static tarball and a wheel, in dist/, tried out
	@scripts/need cargo cc python3 venv
	@scripts/dist
