package grid

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hexkv/hexkv/hexkv"
)

func TestFile(t *testing.T) {
	var g Grid
	require.NoError(t, g.List(" q4_0, hex:balanced,,"))
	require.NoError(t, g.File("grid", "\ufeff# heavy hitters\r\n\r\nhex:tiny:heavy=0.1\n"+
		"more  hitters = hex:tiny:heavy=0.2:recent=-1   # a comment\n\tq8_0/q4_0"))
	var got []string
	for _, s := range g.Settings {
		got = append(got, s.Label+"|"+s.Spec)
		assert.Equal(t, s.Config, must(t, s.Spec))
	}
	assert.Equal(t, []string{"q4_0|q4_0", "hex:balanced|hex:balanced", "hex:tiny:heavy=0.1|hex:tiny:heavy=0.1",
		"more hitters|hex:tiny:heavy=0.2:recent=-1", "q8_0/q4_0|q8_0/q4_0"}, got)
}

func must(t *testing.T, spec string) hexkv.Config {
	c, err := hexkv.ParseConfig(spec)
	require.NoError(t, err)
	return c
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"f16\nfoo", "g line 2: "},
		{"foo", "'foo' is unknown"},
		{"q8_0 q4_0", `"q8_0 q4_0" is not understood; write one cache per line`},
		{"= q8_0", "write one cache per line"},
		{"a = b = q8_0\na = b = q4_0", "\"a = b\" is used twice"},
		{"q8_0\n\nq8_0", "g line 3: q8_0 is named twice; name each cache once"},
		{"a|b = q8_0", "a sign that a table cannot show"},
	} {
		var g Grid
		err := g.File("g", c.text)
		require.ErrorContains(t, err, c.want, c.text)
		assert.ErrorIs(t, err, hexkv.ErrInvalidConfig)
		assert.Contains(t, err.Error(), ";", "no remedy")
		assert.NotContains(t, err.Error(), "\n")
	}
	var g Grid
	assert.ErrorContains(t, g.File("g", "a\xff"), "g is not valid UTF-8")
	assert.ErrorContains(t, g.List("f16,f16"), "f16 is named twice")
}

// Whatever the file, its settings can be written as a file that reads the same, or one line says what is wrong.
func FuzzFile(f *testing.F) {
	for _, s := range []string{"f16\n", "a = hex:tiny:heavy=0.1 # c\r\n\nq8_0/q4_0", "= =\n", "\ufeff\x00", "a b = = f16", "f16\nf16"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var g, again Grid
		if err := g.File("grid", text); err != nil {
			assert.NotContains(t, err.Error(), "\n")
			assert.Contains(t, err.Error(), "grid")
			return
		}
		var b strings.Builder
		for _, s := range g.Settings {
			b.WriteString(s.Label + " = " + s.Spec + "\n")
		}
		require.NoError(t, again.File("grid", b.String()))
		assert.Equal(t, g, again)
	})
}
