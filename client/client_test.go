package client_test

import (
	"testing"
)

func TestUpdates(t *testing.T) {
	w := newWorld(t)
	want := w.statementNow()
	for name, d := range w.devices() {
		t.Run(name, func(t *testing.T) {
			mustUpdate(t, d)
			files, times := d.installed()
			if len(files) != len(want.Items) || times != 1 {
				t.Fatalf("%d files, installed %d times", len(files), times)
			}
			for _, it := range want.Items {
				if files[it.FileName()] != contentOf(it.App, 1) {
					t.Errorf("%s is wrong", it.FileName())
				}
			}
			mustUpdate(t, d)
			if _, times := d.installed(); times != 1 {
				t.Errorf("installed %d times", times)
			}
		})
	}
}
