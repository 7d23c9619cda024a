package hexkv

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

func TestRunes(t *testing.T) {
	for _, c := range []struct {
		name   string
		pieces []string
		want   []string
	}{
		{"ascii", []string{"a", "bc"}, []string{"a", "bc"}},
		{"two bytes", []string{"\xc3", "\xa9"}, []string{"", "é"}},
		{"four bytes", []string{"x\xf0", "\x9f\x98", "\x80y"}, []string{"x", "", "😀y"}},
		{"rune then rest", []string{"é\xe2\x82", "\xac"}, []string{"é", "€"}},
		{"invalid byte", []string{"a\xffb"}, []string{"a\uFFFDb"}},
		{"broken off", []string{"\xe2\x82", "a"}, []string{"", "\uFFFDa"}},
		{"stray continuation", []string{"\x80", "a"}, []string{"\uFFFD", "a"}},
		{"empty", []string{"", ""}, []string{"", ""}},
	} {
		var r runes
		for i, p := range c.pieces {
			assert.Equal(t, c.want[i], r.add([]byte(p)), "%s, piece %d", c.name, i)
		}
	}
}

// However a valid text is cut, the pieces join to it, and each is valid.
func FuzzRunes(f *testing.F) {
	f.Add("héllo €😀", uint8(1))
	f.Add("日本語", uint8(2))
	f.Add("\xff\xfe", uint8(3))
	f.Fuzz(func(t *testing.T, text string, step uint8) {
		var r runes
		var out strings.Builder
		for rest := text; rest != ""; {
			n := min(int(step%5)+1, len(rest))
			piece := r.add([]byte(rest[:n]))
			assert.True(t, utf8.ValidString(piece))
			out.WriteString(piece)
			rest = rest[n:]
		}
		assert.Less(t, len(r.held), utf8.UTFMax)
		if utf8.ValidString(text) {
			assert.Equal(t, text, out.String())
		}
	})
}
