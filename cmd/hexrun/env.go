package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// env is what a command talks to: replies and tables go to stdout, all else to stderr.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	interrupts     *interrupts
	args           []string // as the user typed them
}

// note prints a line that is no reply.
func (e *env) note(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// isTerminal reports whether f is a terminal.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// output remembers that it could not be written, since replies are printed token by token.
type output struct {
	io.Writer
	failed error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil && o.failed == nil {
		o.failed = err
	}
	return n, err
}
