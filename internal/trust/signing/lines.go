package signing

import (
	"fmt"
	"strings"
)

// ReadLines reads a text that is signed: the line title, then lines of a word and the rest. It calls read for each of
// those, and fails if data has more than most bytes.
func ReadLines(data []byte, most int, title string, read func(word, rest string) error) error {
	if len(data) > most {
		return fmt.Errorf("longer than %d bytes", most)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	if lines[0] != title {
		return fmt.Errorf("its first line is not %q", title)
	}
	for i, line := range lines[1:] {
		word, rest, _ := strings.Cut(line, " ")
		if err := read(word, rest); err != nil {
			return fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return nil
}
