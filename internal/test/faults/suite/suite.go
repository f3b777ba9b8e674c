// Package suite lists the tests that break something on purpose, and says of each in a line what it breaks and what
// must hold. docs/reliability.md has one row for each: internal/test/faults/cmd/table writes them from a run.
package suite

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Row is one test.
type Row struct {
	// Of is the fault or the attack, in the words of the lists in docs/reliability.md, or the case's number.
	Of string
	// Driver is what is below the pipeline; empty for attacks, which do not reach that far.
	Driver  string
	Package string // below the module
	// Test is a function, or a function and its subtest: "TestAttacks/rollback: ...".
	Test  string
	Does  string
	Holds string // what must hold; empty: that the test's name says
}

// Name is how a row is found again.
func (r Row) Name() string { return r.Package + "." + r.Test }

// Reported is the test's name as go test reports it.
func (r Row) Reported() string { return strings.ReplaceAll(r.Test, " ", "_") }

// Function is the test's function.
func (r Row) Function() string {
	name, _, _ := strings.Cut(r.Test, "/")
	return name
}

// Drivers.
const (
	Embedded = "embedded"
	AWS      = "AWS"
)

// Where the suites are: every test there is a row.
const (
	Faults  = "internal/test/faults"
	Client  = "client"
	Attacks = "TestAttacks"
)

// FaultList are the faults that must be tested, and over which drivers. An embedded installation has no network, no
// quotas and no credentials between it and its files.
func FaultList() map[string][]string {
	both, remote := []string{Embedded, AWS}, []string{AWS}
	return map[string][]string{
		"SIGKILL": both, "disk full": both, "read errors": both, "clock jumps": both, "lost stream events": both, "outage": both,
		"packet loss and latency": remote, "throttling": remote, "expired credentials": remote,
	}
}

// AttackList are the attacks that must be tested, after TUF and Uptane.
func AttackList() []string {
	return []string{
		"arbitrary installation", "endless data", "extraneous dependency", "fast-forward", "indefinite freeze",
		"malicious mirror", "mix-and-match", "rollback", "slow retrieval", "wrong software", "key compromise",
	}
}

// CaseList are the cases from the field, and the attacks on the program itself, that must be tested. S8 is about the
// device's client in sh.
func CaseList() []string {
	var all []string
	for n := 10; n <= 23; n++ {
		all = append(all, fmt.Sprint("C", n))
	}
	for n := 1; n <= 14; n++ {
		if n != 8 {
			all = append(all, fmt.Sprint("S", n))
		}
	}
	return all
}

// caseInName finds a case in the name of a test, or of a script: at its beginning, or at its end.
var caseInName = regexp.MustCompile(`^(?:Test)?(C[12][0-9]|S[0-9]+)(?:[A-Z_ ]|$)|(C[12][0-9]|S[0-9]+)$`)

// CaseOf is the case that a test is named with: in its function, or in its subtest. It is empty if there is none.
func CaseOf(test string) string {
	for _, name := range strings.Split(test, "/") {
		if m := caseInName.FindStringSubmatch(name); m != nil {
			return m[1] + m[2]
		}
	}
	return ""
}

const (
	completeAlways = "what is published is complete at every moment"
	endsRight      = "in the end, by itself, the bytes of a build from scratch"
	noLoss         = "no dead letter, no item rejected"
)

func holds(all ...string) string { return strings.Join(all, "; ") }

// FaultRows are the tests of faults, in the order of the table.
func FaultRows() []Row {
	return []Row{
		{"SIGKILL", Embedded, Faults, "TestKilledAtEveryWrite",
			"kills the process at every write of two builds: behind each write of objects, queue, ledger and catalog, and half-way through each object",
			holds(completeAlways, "the restarted process ends at the same bytes as one that was never killed", "no job, no dead letter, no temporary file is left")},
		{"SIGKILL", AWS, Faults, "TestKilledAtEveryWriteAWS", "the same over S3, DynamoDB and SQS, behind each write",
			holds(completeAlways, "the restarted process ends at the same bytes", "no job, no dead letter is left")},
		{"SIGKILL of a collection", Embedded, Faults, "TestCollectKilledAtEveryWrite", "kills what removes objects by itself at every write and every removal, then releases and goes on",
			holds(completeAlways, "builds go on; the next time removes the rest")},
		{"disk full under a collection", Embedded, Faults, "TestCollectOnAFullDisk", "nothing can be written while objects are to be removed", "nothing that is needed is removed; it goes on later"},
		{"the same without copies", Embedded, Faults, "TestWithoutCopies", "kills, outages, jumping clocks, read errors, lost events and damage where bundles are composed while they are sent", "what each of those tests says"},
		{"SIGKILL of a rollback", Embedded, Faults, "TestRollbackKilledAtEveryWrite",
			"kills a rollback at every write, also half-way through each object, then asks for it again",
			"published is what was before, or what was asked for, and devices get it; the second run succeeds; no generation is lost"},
		{"SIGKILL of a rollback", AWS, Faults, "TestRollbackKilledAtEveryWriteAWS", "the same over S3, DynamoDB and SQS", "the same"},
		{"SIGKILL of a server", Embedded, "cmd/precast", "TestKilledServersFinishTheirBuild", "kills `precast serve` ten times during a build, each time a little further on",
			"no torn bundle; what is published is complete; the last life ends at the same bytes"},
		{"SIGKILL of a server", AWS, "cmd/precast", "TestAKilledServerOnAWS", "kills one of two servers that build together, in the middle of a job",
			"the other one finishes; what is published is complete"},
		{"SIGKILL of a writer", Embedded, "internal/store/local", "TestKilledAtEachStep", "kills a process after each step of writing an object in a data folder",
			"the old object or the new, nothing else; the next write works"},
		{"SIGKILL of a writer", Embedded, "internal/store/local", "TestKilled", "kills a process that writes objects, catalog, queue and ledger, at random instants, for seconds",
			"everything that was acknowledged is there, nothing is torn"},
		{"failed writes", Embedded, "builder", "TestEveryWriteFailsBothWays", "lets every write of a first and an incremental build fail: not done, and done but reported as failed",
			holds(completeAlways, "tried again, the build finishes")},
		{"failed writes", AWS, "builder", "TestEveryWriteFailsBothWaysOnAWS", "the same over S3, DynamoDB and SQS", "the same"},
		{"failed writes of a rollback", Embedded, "internal/operate/history", "TestEveryWriteOfARollbackFailsBothWays", "the same for the writes of a rollback",
			"the old index or the new; nothing is lost; asked for again, it is done"},
		{"jobs twice and late", Embedded, "builder", "TestDeliveryTorture", "delivers stream records and jobs up to three times, in any order, to two builders whose writes fail",
			holds(completeAlways, "in the end the last catalog is published")},
		{"jobs twice and late", AWS, "builder", "TestDeliveryTortureOnAWS", "the same over S3 and DynamoDB", "the same"},
		{"crashes during a sweep", Embedded, "internal/operate/gc", "TestSweepsAmongEverythingElse", "runs builders, importer, rollbacks and two sweeps, some of which crash, in random order",
			"what is published is complete after every write and every removal"},
		{"disk full", Embedded, Faults, "TestDiskFull",
			"fills the file system of the data folder (ENOSPC) under seed, catalog put and build, and for half a minute under `precast serve`",
			holds("the error says so and names the folder", "what is published is served all the time", "with space again the server goes on by itself, and commands when run again", noLoss)},
		{"disk full", AWS, Faults, "TestDiskFullAWS", "fills the file system where binaries lie on their way to S3, for longer than it takes to give a job up",
			holds(completeAlways, endsRight, noLoss, "no spool file is left")},
		{"read errors", Embedded, Faults, "TestReadErrors", "lets reads of objects, of their list and of the catalog fail (EIO) or break off half-way, at random, then all of them for 90 s",
			holds(completeAlways, "devices get right answers, broken downloads or 503", endsRight, noLoss)},
		{"read errors", AWS, Faults, "TestReadErrorsAWS", "lets a third of all reads of S3, DynamoDB and its streams fail (500) and a quarter of S3's bodies break off, then all reads of DynamoDB, then all reads for 30 s",
			holds(completeAlways, "devices get right answers, broken downloads or 503", endsRight, noLoss)},
		{"damaged files", Embedded, Faults, "TestDamagedFiles", "cuts, empties, doubles every index, bundle, manifest, piece or binary on the disk, or flips a bit in each",
			"a wrong length, or a damaged index, is never served; a flipped bit elsewhere fails the device's checksums; `fsck --deep` finds all of it, `--repair` mends it to the same bytes (the index: a build, once it is out of the way)"},
		{"damaged files", Embedded, Faults, "TestDamagedPieces", "flips a bit in, or cuts, every piece when a change is built that needs them",
			"nothing composed from it is stored or published; after `fsck --deep --repair` and a redrive the change is"},
		{"damaged database", Embedded, "internal/store/local", "TestDamagedDatabase", "overwrites the beginning of the database", "it is refused, and does not come up empty"},
		{"clock jumps", Embedded, Faults, "TestClockJumps",
			"sets the clock of queue, ledger and builder up to half a day forward and back during builds; back by hours while a sweep that died holds its lease; 100 hours forward, past the ledger's memory",
			holds(completeAlways, "jobs that come twice or late do no harm", "all is built when the clock's time has come, at the latest with the next hourly plan")},
		{"clock jumps", AWS, Faults, "TestClockJumpsAWS", "sets the builder's clock up to 12 h forward and back during builds, so that S3, DynamoDB and SQS refuse what it signs",
			holds(completeAlways, endsRight, noLoss)},
		{"clock jumps", Embedded, "internal/store/local", "TestQueueOnItsOwnClock", "sets the system's clock under a queue", "no message becomes visible or invisible because of it"},
		{"lost stream events", Embedded, Faults, "TestLostEvents", "for 24 hours the trigger does not run, or the change log is trimmed before it is read, with the trigger running and before it starts",
			"the hourly plan, or the plan at the trigger's start, finds every change; a trimmed log costs a minute"},
		{"lost stream events", AWS, Faults, "TestLostStreamAWS",
			"the stream forgets the records of a day before they are read: while the trigger runs, while it is down, without telling anybody, and with no function called",
			holds("the plan at a new place in the stream, or the scheduled one, finds every change", endsRight)},
		{"lost stream events", AWS, "internal/run/streampoll", "TestNothingIsLost", "plays random days of a stream: shards that split and end, records trimmed, restarts, failing calls, streams disabled and enabled",
			"every change is followed by a plan that has seen it"},
		{"outage", Embedded, Faults, "TestOutage",
			"lets the object store, or the tables, fail for everybody, from any operation of a build on and for longer than all receives of a job: under one process, and under the Lambda functions on a queue whose deliveries Lambda throttles now and then; there also without any answer, up to the function's deadline",
			holds(completeAlways, "devices get right answers, broken downloads or 503", endsRight, noLoss)},
		{"outage", AWS, Faults, "TestOutageAWS",
			"lets S3, then DynamoDB, answer 500 to everybody, from any request of a build on and for longer than all receives of a job: under one process, and under the Lambda functions",
			holds(completeAlways, "devices get right answers, broken downloads or 503", endsRight, noLoss)},
		{"packet loss and latency", AWS, Faults, "TestNetworkFaultsAWS",
			"puts a fault proxy before S3, DynamoDB, its streams and SQS: latency and jitter, resets, requests and answers that vanish, 20 KB/s, slices of 60 bytes, connections that break off, down for seconds, and all but SQS once for 45 s",
			holds(completeAlways, "devices get right answers, broken downloads or 503", endsRight, noLoss)},
		{"throttling", AWS, Faults, "TestThrottlingAWS",
			"throttles a third of all requests in the service's own words, a third of those after having done them, then all but SQS's for 45 s",
			holds(completeAlways, endsRight, noLoss)},
		{"expired credentials", AWS, Faults, "TestExpiredCredentialsAWS", "lets the credentials expire during builds, with no others to be had: all services say so, then DynamoDB alone",
			holds(completeAlways, "devices get right answers or 503", "with good credentials the same process goes on", endsRight, noLoss)},
		{"everything at once", Embedded, "internal/test/soak", "TestSoak", "devices poll a server whose catalog changes at random and that is killed now and then; here for 4 s",
			"every answer follows from a catalog that can be live; memory and file descriptors stay flat"},
	}
}

// played is an attack of TestAttacks.
func played(name string) Row {
	of, does, _ := strings.Cut(name, ": ")
	return Row{of, "", Client, Attacks + "/" + name, does, "refused; nothing is installed; the next update works"}
}

// AttackRows are the tests of attacks, in the order of the table.
func AttackRows() []Row {
	return []Row{
		played("arbitrary installation: a statement by a key that nobody knows"),
		played("arbitrary installation: a keyring of the attacker's own"),
		played("arbitrary installation: a changed statement"),
		played("arbitrary installation: changed content under the right name and length"),
		{"arbitrary installation", "", Client, "TestHostileArchives", "an archive with paths out of its folder, links, devices, files twice", "refused; nothing is written outside, nothing installed"},
		played("endless data: a bundle without an end"),
		played("endless data: a statement without an end"),
		played("endless data: a keyring without an end"),
		played("extraneous dependency: one file more in the bundle"),
		played("fast-forward: a stolen key counts far ahead"),
		{"fast-forward", "", Client, "TestFastForwardRecovery", "a stolen key counts ahead as far as is allowed, and is revoked", "the device forgets that generation, and has the right files after the next update"},
		played("indefinite freeze: the same answers for ever"),
		played("indefinite freeze: the same keyring for ever"),
		{"indefinite freeze", "", Client, "TestDropRequest", "requests are dropped, each kind of them", "nothing is installed; the next update works"},
		played("malicious mirror: it changes a byte on the way"),
		played("malicious mirror: it adds a signature to the keyring"),
		{"malicious mirror", "", Client, "TestMaliciousMirror", "a mirror behaves, then does not, and the device turns to another one", "refused; the other one's answer is installed"},
		{"malicious mirror", "", Client, "TestSpoiltBeginning", "the beginning of a download is the attacker's", "the next update works"},
		played("mix-and-match: the new statement, a new file and old ones under new names"),
		played("mix-and-match: the new statement and the old bundle"),
		{"mix-and-match", "", Client, "TestTwoStatementsOfOneGeneration", "two statements of one generation, both signed", "the second is refused"},
		played("rollback: the answers of the generation before"),
		played("slow retrieval: the bundle drips"),
		played("slow retrieval: the keyring drips"),
		played("wrong software: the packages of another kind of device"),
		{"wrong software", "", Client, "TestAnswersForOtherDevices", "signed answers for devices on the other side of a rollout, or of a floor: a release too early, one taken back, a floor left out, back to a floor",
			"refused; nothing is installed; the next update works"},
		{"mix-and-match", "", Client, "TestOtherContentAfterAFloor", "another statement of the generation that a floor was of, signed", "refused; what comes after the floor is installed"},
		played("key compromise: a stolen signing key, after it has been revoked"),
		played("key compromise: the revocation is kept from a device that has seen it"),
		played("key compromise: a stolen signing key makes a keyring"),
		{"key compromise", "", Client, "TestForgedSetIDRecovery", "a stolen key states other files under the ID of the released set, and is revoked", "the right files after the next update"},
		{"key compromise", "", Client, "TestRootRotations", "roots are replaced, and an old one makes a keyring", "devices with any old root follow; the old root is not believed"},
		played("partial bundle: a file is left out"),
		played("partial bundle: it is cut off and says that it is whole"),
		played("partial bundle: package_details.json says something else"),
		{"partial bundle", "", Client, "TestPartialBundleIsResumed", "a download is interrupted", "it is resumed"},
		{"all of TestAttacks", "", Client, "TestAttacksAWS", "the same over S3, the composer and a key in KMS, which is the one that is stolen", "the same"},
		{"no signatures", "", Client, "TestNothingIsSigned", "a server without keys", "the device says so, and installs nothing"},
	}
}

// Rows are all.
func Rows() []Row { return slices.Concat(FaultRows(), AttackRows(), CaseRows()) }
