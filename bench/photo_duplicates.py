"""Near-duplicates among real photographs: a 64-bit difference hash against the normalised thumbnails of `toon2real.photos`.
Usage: python bench/photo_duplicates.py [folder] [n]   (default: the first 2,500 training photos of $TOON2REAL_SHARED/data/scenery128)
Prints how many pairs each rule joins, the nearest pairs by thumbnail (look at them: are they one picture?), and the share of altered copies found."""
import io, os, sys
from pathlib import Path
import numpy as np
from PIL import Image, ImageEnhance
from toon2real.images import list_images, open_image
from toon2real.photos import NEAR, _normal, thumbnail

def dhash(im): g = np.asarray(im.convert('L').resize((9, 8), Image.BOX), int); return (g[:, 1:] > g[:, :-1]).ravel()
def jpeg40(im): b = io.BytesIO(); im.save(b, 'JPEG', quality=40); return Image.open(b)
def crop3(im): w, h = im.size; return im.crop((round(.03*w), round(.03*h), w-round(.03*w), h-round(.03*h)))
COPIES = {'JPEG quality 40': jpeg40, 'half size': lambda im: im.resize((im.width//2, im.height//2), Image.LANCZOS), 'brightness x 1.2': lambda im: ImageEnhance.Brightness(im).enhance(1.2),
          'contrast x 0.8': lambda im: ImageEnhance.Contrast(im).enhance(.8), 'cropped by 3 % on each side': crop3}

if __name__ == '__main__':
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(os.environ.get('TOON2REAL_SHARED', '../shared'))/'data/scenery128/photo/train')
    files = list_images(folder)[:int(sys.argv[2]) if len(sys.argv) > 2 else 2500]; ims = [open_image(f) for f in files]; i, j = np.triu_indices(len(ims), 1)
    bits = np.stack([dhash(o) for o in ims]).astype(np.float32)*2 - 1; h = ((64 - bits @ bits.T)/2).round()[i, j]
    t = _normal(np.stack([thumbnail(o) for o in ims])).reshape(len(ims), -1); d = np.concatenate([np.abs(t[k] - t[k+1:]).mean(1) for k in range(len(t)-1)])
    print(f'{len(ims)} photos of {folder.name}, {len(d):,} pairs')
    print('difference hash, pairs within k of 64 bits:', {k: int((h <= k).sum()) for k in (0, 2, 4, 6, 8)})
    print(f'thumbnails, pairs within {NEAR}: {(d <= NEAR).sum()}; the nearest:')
    for k in np.argsort(d)[:6]: print(f'  {d[k]:.1f}  {files[i[k]].name}  {files[j[k]].name}')
    for name, f in COPIES.items():
        c = [(np.abs(_normal(thumbnail(f(o))).ravel() - t[k]).mean(), (dhash(f(o)) != dhash(o)).sum()) for k, o in list(enumerate(ims))[::5]]
        print(f'{name}: found by thumbnail {np.mean([x <= NEAR for x, _ in c]):.1%}, by difference hash within 4 bits {np.mean([x <= 4 for _, x in c]):.1%}  (of {len(c)})')
