// Package progress draws a bar on a terminal.
package progress

import (
	"fmt"
	"io"
	"strings"
	"time"
)

const width = 24

// Bar is one line that is drawn over itself. A nil bar draws nothing.
type Bar struct {
	w     io.Writer
	last  time.Time
	line  string
	drawn bool
	now   func() time.Time
}

// New returns a bar on w, or nil when w is no terminal.
func New(w io.Writer, terminal bool) *Bar {
	if !terminal {
		return nil
	}
	return &Bar{w: w, now: time.Now}
}

// Set draws the share that is done, 0 to 1, and what is being done. At most ten times a second, but always when text
// changes its first word.
func (b *Bar) Set(done float64, text string) {
	if b == nil {
		return
	}
	done = max(0, min(1, done))
	full := int(done*width + 0.5)
	line := fmt.Sprintf("%s%s %3.0f %%  %s", strings.Repeat("█", full), strings.Repeat("░", width-full), 100*done, text)
	now := b.now()
	if line == b.line || (b.drawn && now.Sub(b.last) < 100*time.Millisecond && firstWord(text) == firstWord(b.text())) {
		return
	}
	b.line, b.last, b.drawn = line, now, true
	fmt.Fprintf(b.w, "\r\x1b[K%s", line)
}

func (b *Bar) text() string {
	_, text, _ := strings.Cut(b.line, " %  ")
	return text
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}

// Clear removes the bar, so that other text can be printed.
func (b *Bar) Clear() {
	if b != nil && b.drawn {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.drawn, b.line = false, ""
	}
}
