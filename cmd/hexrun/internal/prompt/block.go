// Package prompt reads what a user types: lines, """ blocks and commands.
package prompt

import "strings"

const fence = `"""`

// Block joins lines into messages. A line that starts with """ opens a block, which ends with the next """ at the end of
// a line, maybe the same one; all other lines are messages of their own.
type Block struct {
	open  bool
	lines []string
}

// Open reports whether a block is open.
func (b *Block) Open() bool { return b.open }

// Add takes a line without its newline, and returns a message when one is complete. quoted says that it was a block, so
// that it is no command.
func (b *Block) Add(line string) (message string, quoted, complete bool) {
	if !b.open {
		start := strings.TrimLeft(line, " \t")
		if !strings.HasPrefix(start, fence) {
			return line, false, true
		}
		b.open = true
		line = start[len(fence):]
	}
	body, closed := strings.CutSuffix(strings.TrimRight(line, " \t"), fence)
	if !closed {
		b.lines = append(b.lines, line)
		return "", false, false
	}
	return b.finish(body), true, true
}

// End closes an open block at the end of the input.
func (b *Block) End() (message string, complete bool) {
	if !b.open {
		return "", false
	}
	return b.finish(""), true
}

// Drop forgets an open block.
func (b *Block) Drop() { *b = Block{} }

// finish returns the block with its last line; empty first and last lines, where the fences stood alone, are left out.
func (b *Block) finish(last string) string {
	lines := append(b.lines, last)
	if len(lines) > 1 && lines[0] == "" {
		lines = lines[1:]
	}
	if n := len(lines) - 1; n > 0 && lines[n] == "" {
		lines = lines[:n]
	}
	b.Drop()
	return strings.Join(lines, "\n")
}
