package prompt

import "strings"

// Command splits "/name argument"; ok is false for lines that are messages, such as "/usr/bin is a directory".
func Command(line string) (name, argument string, ok bool) {
	name, argument, _ = strings.Cut(strings.TrimSpace(line), " ")
	rest, slash := strings.CutPrefix(name, "/")
	if !slash || rest == "" || strings.ContainsFunc(rest, func(r rune) bool { return (r < 'a' || r > 'z') && r != '?' }) {
		return "", "", false
	}
	return name, strings.TrimSpace(argument), true
}
