// Package corpus holds the text that hexrun compare reads when no file is given.
package corpus

import _ "embed"

// Name says what Text is.
const Name = "Newton's Opticks"

// Text is English prose, long enough for 8,192 tokens of any common vocabulary: Queries 1 to 30 at the end of Isaac
// Newton's "Opticks", fourth edition, London 1730. It is in the public domain. Marks of italics, figures and sidenotes
// are left out.
//
//go:embed opticks.txt
var Text string
