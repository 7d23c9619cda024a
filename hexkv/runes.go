package hexkv

import (
	"strings"
	"unicode/utf8"
)

// runes turns a stream of bytes into whole runes: it holds an unfinished one back until its rest arrives. Bytes that
// cannot become a rune turn into U+FFFD. The zero value is ready.
type runes struct{ held []byte }

// add returns the text that is complete now.
func (r *runes) add(piece []byte) string {
	r.held = append(r.held, piece...)
	n := len(r.held)
	for i := 1; i <= min(utf8.UTFMax-1, n); i++ { // at most three bytes of an unfinished rune
		if b := r.held[n-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(r.held[n-i:]) {
				n -= i
			}
			break
		}
	}
	text := strings.ToValidUTF8(string(r.held[:n]), "\uFFFD")
	r.held = append(r.held[:0], r.held[n:]...)
	return text
}
