package prompt

import (
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// messages feeds lines and returns the messages, blocks in angle brackets.
func messages(lines ...string) (all []string) {
	var b Block
	for _, line := range lines {
		if m, quoted, ok := b.Add(line); ok && quoted {
			all = append(all, "<"+m+">")
		} else if ok {
			all = append(all, m)
		}
	}
	if m, ok := b.End(); ok {
		all = append(all, "<"+m+"> at the end")
	}
	return all
}

func TestBlock(t *testing.T) {
	for _, c := range []struct {
		in   []string
		want []string
	}{
		{[]string{"one", "two"}, []string{"one", "two"}},
		{[]string{`"""`, "one", "two", `"""`, "three"}, []string{"<one\ntwo>", "three"}},
		{[]string{`"""one`, `two"""`}, []string{"<one\ntwo>"}},
		{[]string{`"""one"""`}, []string{"<one>"}},
		{[]string{`  """one""" `, "two"}, []string{"<one>", "two"}},
		{[]string{`""""""`}, []string{"<>"}},
		{[]string{`"""`, `"""`}, []string{"<>"}},
		{[]string{`"""`, "", "  a", "", `"""`}, []string{"<\n  a\n>"}},
		{[]string{`"""`, "/clear", `say """ twice`, `"""`}, []string{"</clear\nsay \"\"\" twice>"}},
		{[]string{`say """hello"""`}, []string{`say """hello"""`}},
		{[]string{`"""`, "one"}, []string{"<one> at the end"}},
		{nil, nil},
	} {
		assert.Equal(t, c.want, messages(c.in...), "%q", c.in)
	}
}

func TestDrop(t *testing.T) {
	var b Block
	b.Add(`"""one`)
	require.True(t, b.Open())
	b.Drop()
	require.False(t, b.Open())
	m, quoted, ok := b.Add("two")
	assert.Equal(t, "two", m)
	assert.False(t, quoted)
	assert.True(t, ok)
}

func TestCommand(t *testing.T) {
	for line, want := range map[string][2]string{
		"/bye": {"/bye"}, " /read  a file.txt ": {"/read", "a file.txt"}, "/?": {"/?"}, "/nonsense x": {"/nonsense", "x"},
	} {
		name, argument, ok := Command(line)
		assert.True(t, ok, line)
		assert.Equal(t, want, [2]string{name, argument}, line)
	}
	for _, line := range []string{"", "hello", "/", "/usr/bin is a directory", "// comment", "a /bye"} {
		_, _, ok := Command(line)
		assert.False(t, ok, line)
	}
}

func TestPlain(t *testing.T) {
	r := NewPlain(strings.NewReader("one\r\n\ntwo"))
	for _, want := range []string{"one", "", "two"} {
		line, err := r.Line(First)
		require.NoError(t, err)
		assert.Equal(t, want, line)
	}
	_, err := r.Line(First)
	assert.Equal(t, io.EOF, err)
}
