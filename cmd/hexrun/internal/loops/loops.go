// Package loops finds text that repeats itself without end.
package loops

// What counts as a loop: the last Least tokens, or four periods if that is more, repeat with a period of at most Longest tokens.
const (
	Least   = 64
	Longest = 256
	periods = 4
)

// Period returns the smallest period in which the end of tokens repeats, 0 for none.
func Period[T comparable](tokens []T) int {
	for p := 1; p <= Longest; p++ {
		n := max(Least, periods*p)
		if n > len(tokens) {
			continue
		}
		if repeats(tokens[len(tokens)-n:], p) {
			return p
		}
	}
	return 0
}

func repeats[T comparable](tokens []T, period int) bool {
	for i := period; i < len(tokens); i++ {
		if tokens[i] != tokens[i-period] {
			return false
		}
	}
	return true
}
