# Every command of this repository; `make` alone prints them.
PYTHON := .venv/bin/python

.PHONY: bench-data bench-data-growth

bench-data: ## Data work beside Feast, pandas, evidently, Metaflow and ZenML; about ten minutes
	$(PYTHON) benchmarks/data/bench.py

bench-data-growth: ## The same from 10^4 to 10^7 rows; draws docs/explanation/growth.svg; about half an hour
	$(PYTHON) benchmarks/data/growth.py
