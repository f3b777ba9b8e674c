package edge_test

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/precast-ota/precast/edge"
	"github.com/precast-ota/precast/internal/format/layout"
)

// A statement is of a generation, an epoch, the selection in its canonical form, and what that gets.
func TestStatementObject(t *testing.T) {
	ix := sampleIndex().With(7)
	want := func(query, selection string, epoch uint64, held string) {
		t.Helper()
		d := edge.Decide(ix, query, held)
		d.Epoch = epoch
		sum := sha256.Sum256([]byte(selection + "\n" + d.Set.ID() + "\n"))
		kind, key := d.Object()
		if d.Status != edge.StatusOK || kind != layout.Statement || key != layout.StatementKey(7, epoch, hex.EncodeToString(sum[:])) {
			t.Errorf("%s: status %d, kind %d, key %s", query, d.Status, kind, key)
		}
	}
	want("payloadType=statement&cpuArch=ARMv8", "cpuarch=armv8", 3, "")
	want("cpuArch=armv8&payloadType=STATEMENT&os=prod", "cpuarch=armv8", 4, "")
	want("attrGamer=prod&cpuArch=armv8&payloadType=statement", "attrgamer=prod&cpuarch=armv8", 5, "")
	// Whoever holds everything wants to know that it is still so.
	want("cpuArch=armv8&payloadType=statement", "cpuarch=armv8", 6, md5Of("os_armv8", "1.1.0"))
	if d := edge.Decide(ix, "cpuArch=riscv&payloadType=statement", ""); d.Status != edge.StatusNotFound {
		t.Errorf("nothing to state: status %d", d.Status)
	}
}

func TestBare(t *testing.T) {
	s, err := edge.ParseSelection("payloadType=statement&cpuArch=x&os=beta&app=prod")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Bare().String(); got != "app=prod&cpuarch=x&os=beta" {
		t.Errorf("bare selection %q", got)
	}
	if s.Payload != edge.Statement {
		t.Error("the selection itself has changed")
	}
}
