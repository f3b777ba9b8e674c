package main

import (
	"fmt"
	"strings"
)

// count is a number and what it counts, in the plural unless it is one.
func count[N int | int64 | uint64 | float64](n N, noun string) string {
	number := fmt.Sprint(n)
	if f, ok := any(n).(float64); ok {
		number = fmt.Sprintf("%.10g", f)
	}
	if n == 1 {
		return number + " " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return number + " " + stem + "ies"
	}
	return number + " " + noun + "s"
}
