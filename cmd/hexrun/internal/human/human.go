// Package human writes numbers for people.
package human

import (
	"fmt"
	"math"
	"strconv"
)

// Bytes writes n with a binary unit and three or four digits: "22.5 MiB".
func Bytes(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	x, i := float64(n)/1024, 0
	for ; x >= 1023.95 && i < len(units)-1; i++ {
		x /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", math.Floor(x*10+0.5)/10, units[i]) // halves up, not to the even digit
}

// Count writes n with separators: "8,192".
func Count[T ~int | ~int64 | ~uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	first := 0
	if n < 0 {
		first = 1
	}
	for i := len(s) - 3; i > first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Rate writes tokens per second with three digits.
func Rate(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// Divergence writes a small number with three digits that count, and an exact zero as "0".
func Divergence(x float64) string {
	if x == 0 {
		return "0"
	}
	return fmt.Sprintf("%#.3g", x)
}

// Percent writes a share.
func Percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }
