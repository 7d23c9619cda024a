package prompt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// Prompts of a terminal.
const (
	First = ">>> " // of a message
	More  = "... " // of the further lines of a block
)

// ErrInterrupted says that the user typed Ctrl-C.
var ErrInterrupted = errors.New("interrupted")

// Reader reads lines without their newline; io.EOF ends the input.
type Reader interface {
	Line(prompt string) (string, error)
}

// Plain reads lines from a pipe or a file, and prints no prompts.
type Plain struct{ in *bufio.Reader }

// NewPlain returns a reader of r.
func NewPlain(r io.Reader) *Plain { return &Plain{bufio.NewReader(r)} }

// Line implements [Reader]. A last line without a newline counts.
func (p *Plain) Line(string) (string, error) {
	line, err := p.in.ReadString('\n')
	if err == io.EOF && line != "" {
		err = nil
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}

// Terminal edits lines on a terminal and remembers them for the arrow keys. Between lines the terminal is as it was, so
// that Ctrl-C is a signal then.
type Terminal struct {
	in     *os.File
	out    io.Writer
	editor *term.Terminal
	onRaw  func(restore func())
}

// NewTerminal edits on the terminal in, and draws on out. onRaw is called with what restores the terminal whenever it is
// switched, and with nil when it is as it was.
func NewTerminal(in *os.File, out io.Writer, onRaw func(restore func())) *Terminal {
	t := &Terminal{in: in, out: out, onRaw: onRaw}
	t.editor = t.newEditor()
	return t
}

func (t *Terminal) newEditor() *term.Terminal {
	return term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{keys{t.in}, t.out}, "")
}

// keys reads what is typed, and fails at Ctrl-C, which the editor would report as the end of the input.
type keys struct{ io.Reader }

func (k keys) Read(p []byte) (int, error) {
	n, err := k.Reader.Read(p)
	if bytes.IndexByte(p[:n], 3) >= 0 {
		return 0, ErrInterrupted
	}
	return n, err
}

// Line implements [Reader]; [ErrInterrupted] for Ctrl-C.
func (t *Terminal) Line(prompt string) (string, error) {
	fd := int(t.in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", err
	}
	restore := func() { term.Restore(fd, state) }
	t.onRaw(restore)
	defer t.onRaw(nil)
	defer restore()

	if width, height, err := term.GetSize(fd); err == nil && width > 0 {
		t.editor.SetSize(width, height)
	}
	t.editor.SetPrompt(prompt)
	line, err := t.editor.ReadLine()
	if err == ErrInterrupted { // a new editor forgets the line, but not those before
		history := t.editor.History
		t.editor = t.newEditor()
		t.editor.History = history
	}
	return line, err
}
