# What a person types. Works from a fresh clone with Python 3.11 or newer, git and make.

.DEFAULT_GOAL := help

# A Python that this ansible-core supports.
ifndef PYTHON
PYTHON := $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && \
	command -v $$python && break; done)
endif
LAB := $(or $(PYTHON),python3) -m lab
SCENARIOS := $(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
HOSTS_TESTS := $(patsubst tests/hosts/test_%.py,%,$(wildcard tests/hosts/test_*.py))

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Under our own configuration, whatever the caller's shell says.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
	while IFS='|' read -r target text; do printf '  make %-10s %s\n' "$$target" "$$text"; done

.PHONY: up
up: ## from nothing to replicated Redis, a backup and its proof, on five hosts on this machine
	@set -e; began=$$(date +%s); \
	$(LAB) setup; \
	$(LAB) create lab; \
	ansible-playbook site.yml; \
	ansible-playbook lab/load-sample-data.yml; \
	ansible-playbook playbooks/backup_now.yml; \
	ansible-playbook playbooks/restore_drill.yml; \
	ansible-playbook playbooks/show_status.yml; \
	echo "make up: done in $$(( $$(date +%s) - began )) s"

.PHONY: down
down: ## remove those hosts and all that was made for them; .venv and the host image stay
	@$(LAB) destroy lab

.PHONY: quick
quick: venv tools lint unit ## lint and the tests that need no hosts, about ten minutes

.PHONY: lint
lint: venv
	ansible-config validate --type all
	ansible-galaxy collection install --requirements-file requirements.yml --offline
	ansible-galaxy role install --role-file requirements.yml
	yamllint --strict .
	ruff check --quiet .
	ruff format --check --quiet .
	mypy
	ansible-lint -q

.PHONY: unit
unit: venv tools
	@pytest --numprocesses 4 --dist worksteal

.PHONY: test
test: quick ## everything: quick, then Molecule's scenarios and tests/hosts on hosts of their own, two at a time (JOBS)
	@$(MAKE) --no-print-directory --keep-going --jobs=$(or $(JOBS),2) $(SCENARIOS:%=scenario-%) $(HOSTS_TESTS:%=hosts-%)

# Two of them write at the same time, so each line begins with a name.
scenario-% hosts-%: SHELL := /bin/bash
scenario-%: FORCE
	@set -o pipefail; MOLECULE_EPHEMERAL_DIRECTORY="$(CURDIR)/.labs/.molecule/$*" \
		molecule test --scenario-name "$*" 2>&1 | sed --unbuffered "s/^/$*: /"

hosts-%: FORCE
	@set -o pipefail; pytest tests/hosts/test_$*.py 2>&1 | sed --unbuffered "s/^/$*: /"

.PHONY: FORCE
FORCE:

.PHONY: soak
soak: venv tools ## the campaigns in full: kills, corruption, fuzzing, starts ...; 50 minutes; PART=runs or another for one
	@SOAK=1 RETENTION_EXAMPLES=100000 pytest --durations=20 \
		$(if $(PART),$(wildcard tests/*/test_$(PART).py),tests/campaigns tests/tool/test_retention.py)

.PHONY: bench
bench: SHELL := /bin/bash
bench: venv ## compare with the classic script, restic, a bare load and a bare role; ends with the ratios, about 25 minutes
	@$(LAB) tools --bench
	@set -eo pipefail; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	for part in stall.py backup.py drill.py "deploy.py --profile"; do \
		python -u bench/$$part; \
	done | tee "$$log"; \
	echo; grep '^ratio ' "$$log"

.PHONY: collection
collection: venv ## pack the collection for other projects, of what is committed
	@set -e; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	git archive HEAD | tar -x -C "$$copy"; \
	ansible-galaxy collection build --force "$$copy"

.PHONY: docs
docs: venv ## write the tables of variables in the roles' README files
	@python docs/generate.py

.PHONY: fixtures
fixtures: venv tools ## make the RDB files of tests/fixtures again, with the Redis of three Debian releases
	@python -m tests.fixtures.make

.PHONY: distclean
distclean: ## remove every lab of this checkout, the host images, .venv and all caches
	@$(LAB) clean
	rm -rf .venv .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache

.PHONY: venv
venv: ## Ansible and the other tools at the tested versions, in .venv
	@$(LAB) venv

.PHONY: tools
tools:
	@$(LAB) tools --tests
