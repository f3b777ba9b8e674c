# Precast. `make` lists the targets. Everything that a target needs it installs, below .cache/.

GO      ?= go
BIN     := bin
CACHE   := .cache
FUZZ    ?= 30s
# FuzzFunction compares 32 requests a time, and fails below 100,000: it is counted, however fast the machine.
FUZZ_FUNCTION ?= 4000x
SOAK    ?= 5m

# Where Terraform's providers are, if not in its registry: for machines without a network. Empty: the registry.
TF_PLUGIN_MIRROR ?= $(patsubst %/,%,$(dir $(firstword $(wildcard /opt/*/registry.terraform.io))))
export TF_PLUGIN_MIRROR

.DEFAULT_GOAL := help
.PHONY: help build package edge demo demo-edge test test-aws test-terraform test-nodes test-race fuzz soak reliability bench bench-disk golden fmt cross module-path lint vuln ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The newest tag and how far the checkout is from it, or the commit; empty outside a checkout.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

build: ## build bin/precast
	$(GO) build -trimpath $(if $(VERSION),-ldflags '-X main.version=$(VERSION)') -o $(BIN)/precast ./cmd/precast

package: ## build the Lambda functions, for arm64 and amd64, into dist/; reproducible
	$(GO) run ./builder/cmd/pack -out dist

edge: ## build dist/edge.zip (Lambda@Edge) and the viewer functions; BUCKET and REGION bake in a bucket
	$(GO) run ./edge/cmd/pack -out dist $(if $(BUCKET),-bucket $(BUCKET) -region $(REGION))

demo: build ## play the whole story on this machine (needs Go only; curl where there is one)
	$(BIN)/precast demo

demo-edge: edge ## the same story through a stand-in for CloudFront with the real edge functions (needs Node 20)
	$(GO) run ./edge/rig/cmd/demo -dist dist

test: ## all tests that need no network (needs Node 20)
	$(GO) test -timeout 20m ./...

AWS := ./internal/store/aws/... ./internal/trust/kmskey ./internal/run/streampoll ./builder/cmd

test-aws: ## the AWS suites, on a stand-in that this installs below .cache/, and test-terraform (needs Python 3.10, Terraform)
	sh internal/test/standin/install.sh
	$(GO) test -count=1 -tags aws $(AWS)
	$(GO) test -count=1 -timeout 30m -tags aws -run AWS ./builder ./client ./cmd/precast ./internal/run/cdn ./internal/test/faults ./internal/test/upgrade ./terraform ./terraform/deploy
	$(MAKE) test-terraform

# Lambda's runtimes besides 20 (https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html).
NODES := 22.23.3 24.21.0

test-nodes: ## the edge on the other Node versions that Lambda has; npm installs them below .cache/
	@set -e; for v in $(NODES); do \
	  test -x $(CACHE)/node-$$v/node_modules/.bin/node || npm install --silent --no-save --no-audit --no-fund --prefix $(CACHE)/node-$$v node@$$v; \
	  PATH="$$PWD/$(CACHE)/node-$$v/node_modules/.bin:$$PATH" sh -c 'node --version; $(GO) test -count=1 ./edge/shim ./edge/function ./edge/rig'; \
	done

test-terraform: ## the Terraform module: format, validity, tests with mocked providers, checkov (needs Terraform, Python)
	sh terraform/checks.sh

RACE := ./client ./internal/trust/issuer ./internal/trust/statement ./edge/nodeproc ./edge/rig ./builder/... ./internal/run/server ./internal/run/pipeline ./internal/run/admin ./internal/store/local ./internal/format/bundle \
	./internal/run/lambdas ./internal/run/streampoll ./internal/operate/history ./internal/operate/fsck ./internal/operate/gc ./cmd/precast

test-race: ## the concurrent packages under the race detector
	$(GO) test -race -timeout 20m -skip '^TestC19AnHourOfReleases$$' $(RACE)

fuzz: ## run every fuzz target for FUZZ (30s) each, that of the viewer function FUZZ_FUNCTION (4000x)
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$target"; \
	    case $$target in FuzzFunction) time=$(FUZZ_FUNCTION);; *) time=$(FUZZ);; esac; \
	    $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $$time $$pkg; \
	  done; \
	done

soak: ## devices poll while the catalog changes at random, for SOAK (5m); every answer is checked
	$(GO) test -count=1 -v -timeout 0 -run Soak ./internal/test/soak -soak $(SOAK)

# Everything runs, whatever fails: the table says it.
reliability: ## the fault and attack suites, on this machine and the AWS stand-in; writes the table of docs/reliability.md
	sh internal/test/standin/install.sh
	@mkdir -p $(CACHE)
	$(GO) test -json -count=1 -p 1 -timeout 60m -tags aws $$($(GO) run ./internal/test/faults/cmd/table -args) > $(CACHE)/reliability.json || true
	$(GO) run ./internal/test/faults/cmd/table -doc docs/reliability.md $(CACHE)/reliability.json

bench: ## benchmarks: ratios in one run
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

bench-disk: ## an hour of releases of a catalog of 30 MiB, compressed: what the data folder takes, against the binaries
	$(GO) test -count=1 -v -run C19AnHour ./internal/run/pipeline -hour 31457280

golden: ## write the golden files anew; look at the diff
	$(GO) test $$(grep -rl --include='*_test.go' 'flag.Bool("update"' . | xargs -n1 dirname | sort -u) -update

fmt: ## format the code
	gofmt -w $$(git ls-files '*.go')

PLATFORMS := linux/amd64 linux/arm64 linux/arm linux/mipsle darwin/arm64 windows/amd64
# What cross builds and vets for each platform. Vetting covers the tests.
CROSS ?= ./...

# $(call go-for,linux/arm,build ./...) runs the go command for a platform.
go-for = CGO_ENABLED=0 GOOS=$(patsubst %/,%,$(dir $1)) GOARCH=$(notdir $1) GOARM=7 GOMIPS=softfloat $(GO) $2

cross: ## build and vet for every platform
	@set -e; $(foreach p,$(PLATFORMS),echo $p; $(call go-for,$p,build $(CROSS)); $(call go-for,$p,vet $(CROSS));)

module-path: ## rename the module everywhere, to TO: make module-path TO=example.com/me/precast
	@test -n "$(TO)" || { echo "say what the module's path is to be: make module-path TO=example.com/me/precast"; exit 1; }
	@set -e; from=$$($(GO) list -m); \
	  grep -rlIF --exclude-dir=.git --exclude-dir=$(CACHE) --exclude-dir=$(BIN) --exclude-dir=dist "$$from" . | while read -r f; do \
	    sed "s|$$(echo "$$from" | sed 's|\.|\\.|g')|$(TO)|g" "$$f" > "$$f.renamed"; cat "$$f.renamed" > "$$f"; rm "$$f.renamed"; \
	  done
	gofmt -w .

# The tools are a module of their own (tools/go.mod), so that the product's names only what it links. revive's bounds, for
# what is no test: tools/revive.toml. It is given files, since packages would leave out those for other platforms.
TOOL := $(GO) tool -modfile=tools/go.mod

lint: vuln ## format, vet, staticcheck, bounds on size, both modules, vulnerabilities; changes nothing
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "not formatted (make fmt):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags aws ./...
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags aws ./...
	@echo revive: functions, files
	@$(TOOL) revive -config tools/revive.toml $$(git ls-files '*.go' ':!*_test.go')
	$(GO) mod verify
	$(GO) -C tools mod verify
	$(GO) mod tidy -diff
	$(GO) -C tools mod tidy -diff

VULNDB ?= https://vuln.go.dev

vuln: ## look for known vulnerabilities in what the code calls (needs the database at VULNDB, or says that it has none)
	@mkdir -p $(CACHE)
	@$(TOOL) govulncheck -db $(VULNDB) ./... > $(CACHE)/vuln.log 2>&1 || \
	  if grep -q 'fetching vulnerabilities' $(CACHE)/vuln.log; then echo "govulncheck: not checked, $(VULNDB) cannot be reached"; \
	  else cat $(CACHE)/vuln.log; exit 1; fi

ci: lint ## what continuous integration runs
	$(MAKE) cross
	$(GO) test -count=1 -timeout 20m ./...
	$(MAKE) test-aws
	$(MAKE) test-nodes
	$(GO) test -count=1 -race -timeout 20m -skip '^TestC19AnHourOfReleases$$' $(RACE)
	@mkdir -p $(CACHE)
	$(GO) test -run "^$$$$" -bench . -benchtime 1x ./... > $(CACHE)/bench.log 2>&1 || { cat $(CACHE)/bench.log; exit 1; }
	$(MAKE) demo
	$(MAKE) demo-edge

clean: ## remove what the targets made
	rm -rf $(BIN) dist $(CACHE)
