package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// With -p, standard input counts when somebody wrote or ended it, and never blocks when nobody does.
func TestPiped(t *testing.T) {
	read := func(in *os.File) (text, note string) {
		var errs bytes.Buffer
		text, err := piped(&env{stdin: in, stderr: &errs})
		require.NoError(t, err)
		return text, errs.String()
	}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}

	file, err := os.Open(temp(t, "notes.txt", "from a file\n"))
	require.NoError(t, err)
	defer file.Close()
	text, note := read(file)
	assert.Equal(t, "from a file", text)
	assert.Contains(t, note, "note: 11 characters of standard input follow the prompt")
	text, note = read(file)
	assert.Empty(t, text+note, "at its end")

	r, w := pipe()
	time.AfterFunc(patience/10, func() {
		w.WriteString("from ")
		time.Sleep(patience / 10)
		w.WriteString("a pipe\n")
		w.Close()
	})
	text, _ = read(r)
	assert.Equal(t, "from a pipe", text)
	text, note = read(r)
	assert.Empty(t, text+note, "closed")

	r, _ = pipe()
	text, note = read(r)
	assert.Empty(t, text, "open, without data")
	assert.Contains(t, note, "add -f - to wait for it")

	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	text, note = read(null)
	assert.Empty(t, text+note)
	file.Close()
	text, note = read(file)
	assert.Empty(t, text+note, "no standard input at all")
}
