package loops

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPeriod(t *testing.T) {
	row := func(n int, f func(i int) int) []int {
		all := make([]int, n)
		for i := range all {
			all[i] = f(i)
		}
		return all
	}
	count := func(i int) int { return i }
	for name, c := range map[string]struct {
		tokens []int
		want   int
	}{
		"none":                     {nil, 0},
		"all different":            {row(1000, count), 0},
		"one token":                {row(Least, func(int) int { return 7 }), 1},
		"one token too few":        {row(Least-1, func(int) int { return 7 }), 0},
		"three tokens":             {row(100, func(i int) int { return i % 3 }), 3},
		"a sentence, four times":   {row(80, func(i int) int { return i % 20 }), 20},
		"a sentence, three times":  {row(60+63, func(i int) int { return max(0, i-62) % 21 * i }), 0},
		"the longest":              {row(4*Longest, func(i int) int { return i % Longest }), Longest},
		"longer than the longest":  {row(8*Longest, func(i int) int { return i % (Longest + 1) }), 0},
		"loops after a while":      {append(row(500, count), row(64, func(i int) int { return i % 2 })...), 2},
		"a loop that was left":     {append(row(64, func(i int) int { return i % 2 }), row(20, count)...), 0},
		"a period hidden in parts": {row(256, func(i int) int { return i % 64 / 63 }), 64},
	} {
		assert.Equal(t, c.want, Period(c.tokens), name)
	}
}
