package options

// OnlyType reads a Backend object that has no keys but Type. It returns a line
// for each key that has no effect.
func OnlyType(raw []byte) ([]string, error) {
	o, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	var name string
	o.String("Type", &name)
	return o.Unknown(), o.Err()
}
