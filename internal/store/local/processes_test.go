package local

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/precast-ota/precast/builder"
	"github.com/precast-ota/precast/internal/format/layout"
)

// playPut competes for absent keys, and says which it won.
func playPut(dir, arg string) error {
	o, err := OpenObjects(dir)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	awaitStdin()
	for i := range uint64(60) {
		content := strings.Repeat(arg, 1000+int(i))
		_, err := o.Put(noContext, layout.PlanKey(i), bodyOf(content), builder.PutOptions{IfAbsent: true, Meta: map[string]string{"by": arg}})
		if err == nil {
			fmt.Println(i)
		} else if !errors.Is(err, builder.ErrPrecondition) {
			return err
		}
		got, info, err := readObject(o, layout.PlanKey(i))
		if err != nil {
			return err
		}
		if by := info.Meta["by"]; got != strings.Repeat(by, 1000+int(i)) {
			return fmt.Errorf("object %d is a mixture", i)
		}
	}
	return nil
}

func TestProcessesCompeteForAbsentKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var children []*child
	for i := range 4 {
		c := start(t, "put", dir, strconv.Itoa(i))
		c.wantLine(t, "ready")
		children = append(children, c)
	}
	for _, c := range children {
		c.stdin.Close()
	}
	winner := make(map[string]int)
	for i, c := range children {
		for line, ok := c.line(); ok; line, ok = c.line() {
			if by, taken := winner[line]; taken {
				t.Errorf("key %s was won by %d and %d", line, by, i)
			}
			winner[line] = i
		}
		c.finish(t)
	}
	o, err := OpenObjects(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(60) {
		by, ok := winner[fmt.Sprint(i)]
		if !ok {
			t.Errorf("nobody won key %d", i)
		}
		wantObject(t, o, layout.PlanKey(i), strings.Repeat(strconv.Itoa(by), 1000+int(i)))
	}
}

const increments = 40

// playCounter adds to the counter that the index is.
func playCounter(dir, _ string) error {
	o, err := OpenObjects(dir)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	awaitStdin()
	for range increments {
		for {
			s, info, err := readObject(o, layout.IndexKey)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(s)
			if err != nil {
				return err
			}
			_, err = o.Put(noContext, layout.IndexKey, bodyOf(strconv.Itoa(n+1)), builder.PutOptions{IfMatch: info.ETag})
			if err == nil {
				break
			}
			if !errors.Is(err, builder.ErrPrecondition) {
				return err
			}
		}
	}
	return nil
}

func TestProcessesCompareAndSwap(t *testing.T) {
	t.Parallel()
	o, dir := openTempObjects(t)
	put(t, o, layout.IndexKey, "0", builder.PutOptions{})
	var children []*child
	for range 3 {
		c := start(t, "counter", dir, "")
		c.wantLine(t, "ready")
		children = append(children, c)
	}
	for _, c := range children {
		c.stdin.Close()
	}
	for _, c := range children {
		c.finish(t)
	}
	wantObject(t, o, layout.IndexKey, strconv.Itoa(3*increments))
}
