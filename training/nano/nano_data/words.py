"""Word lists and a small table of public facts. ASCII only, so that the tokenizer's split is easy to state."""

NAMES = ("Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor "
         "Will Zoe Alice Bob Eva Max Nina Omar Lucy Tom").split()

# singular, plural
THINGS = [tuple(pair.split("/")) for pair in (
    "apple/apples pen/pens book/books coin/coins card/cards stamp/stamps cookie/cookies marble/marbles "
    "flower/flowers ball/balls egg/eggs cup/cups key/keys toy/toys orange/oranges shell/shells").split()]
BOXES = [tuple(pair.split("/")) for pair in "box/boxes bag/bags shelf/shelves basket/baskets jar/jars".split()]

# country, capital, continent, language
COUNTRIES = [tuple(line.split("/")) for line in """France/Paris/Europe/French
Germany/Berlin/Europe/German
Italy/Rome/Europe/Italian
Spain/Madrid/Europe/Spanish
Portugal/Lisbon/Europe/Portuguese
Austria/Vienna/Europe/German
Greece/Athens/Europe/Greek
Poland/Warsaw/Europe/Polish
Norway/Oslo/Europe/Norwegian
Sweden/Stockholm/Europe/Swedish
Finland/Helsinki/Europe/Finnish
Denmark/Copenhagen/Europe/Danish
Hungary/Budapest/Europe/Hungarian
Ireland/Dublin/Europe/English
Japan/Tokyo/Asia/Japanese
China/Beijing/Asia/Chinese
Thailand/Bangkok/Asia/Thai
Vietnam/Hanoi/Asia/Vietnamese
Turkey/Ankara/Asia/Turkish
Mongolia/Ulaanbaatar/Asia/Mongolian
Iran/Tehran/Asia/Persian
Nepal/Kathmandu/Asia/Nepali
Egypt/Cairo/Africa/Arabic
Kenya/Nairobi/Africa/Swahili
Ghana/Accra/Africa/English
Senegal/Dakar/Africa/French
Morocco/Rabat/Africa/Arabic
Ethiopia/Addis Ababa/Africa/Amharic
Brazil/Brasilia/South America/Portuguese
Peru/Lima/South America/Spanish
Chile/Santiago/South America/Spanish
Colombia/Bogota/South America/Spanish
Cuba/Havana/North America/Spanish
Canada/Ottawa/North America/English
Mexico/Mexico City/North America/Spanish
Jamaica/Kingston/North America/English""".splitlines()]

# element, symbol, atomic number
ELEMENTS = [tuple(line.split("/")) for line in (
    "hydrogen/H/1 helium/He/2 lithium/Li/3 carbon/C/6 nitrogen/N/7 oxygen/O/8 neon/Ne/10 sodium/Na/11 "
    "aluminium/Al/13 silicon/Si/14 sulfur/S/16 calcium/Ca/20 iron/Fe/26 copper/Cu/29 zinc/Zn/30 silver/Ag/47 "
    "tin/Sn/50 gold/Au/79 mercury/Hg/80 lead/Pb/82").split()]

PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()
OPPOSITES = [tuple(pair.split("/")) for pair in (
    "hot/cold big/small fast/slow up/down day/night open/closed old/new wet/dry full/empty hard/soft rich/poor "
    "early/late high/low light/dark strong/weak long/short").split()]
LEGS = [tuple(pair.split("/")) for pair in (
    "dog/4 cat/4 horse/4 cow/4 spider/8 ant/6 bee/6 bird/2 hen/2 snake/0 fish/0 frog/4").split()]

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]  # February outside of leap years

SORT_WORDS = ("ant bear cat dog eagle fox goat horse iguana jaguar koala lion mouse newt otter panda quail rabbit "
              "seal tiger vole wolf yak zebra").split()

# Words for tasks on letters. The tokenizer holds none of them, so that their letters are seen.
SPELLING_WORDS = """anchor arrow autumn bamboo banana barrel basil beetle blanket bottle branch breeze bridge bubble
bucket butter button cabbage camera candle canyon carpet carrot castle cellar cherry circle clover coffee copper corner
cotton cradle crystal curtain desert dinner dragon drawer engine falcon family feather fiddle finger flame forest
fossil galaxy garden garlic ginger glacier gravel guitar hammer harbor helmet hollow honey insect island jacket jungle
kettle kitten ladder lemon letter lizard locket magnet mango maple market meadow melon mirror monkey muffin napkin
needle nickel object ocean olive onion orchid oyster paddle palace pencil pepper pillow pirate planet pocket potato
puzzle raccoon ribbon river rocket saddle salmon school season shadow shelter silver spider spinach squirrel
stone storm street summer sunset tablet temple thunder ticket timber tomato tunnel turtle valley velvet village violin
walnut whistle willow window winter wizard yellow zipper""".split()

MESSAGES = ["see you at 5", "I am late", "call me back", "happy birthday", "the train is late", "lunch is ready",
            "good luck", "I am at home", "bring milk", "the meeting is at 10", "thank you", "wait for me"]
SONGS = ["Blue Moon", "Yesterday", "Clair de Lune", "Summertime", "Greensleeves", "Moon River", "Silent Night",
         "Ode to Joy"]
EVENTS = ["lunch", "dentist", "meeting", "party", "concert", "yoga", "exam", "dinner"]
ROOMS = ["kitchen", "bedroom", "garage", "office", "bathroom", "hall"]
PRODUCTS = ["lamp", "chair", "desk", "phone", "bike", "camera", "watch", "tent", "kettle", "sofa"]
CURRENCIES = ["dollars", "euros", "yen", "pounds", "francs"]
CONDITIONS = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy"]
END_WORDS = ["done", "over", "thanks", "okay", "cheers", "amen", "banana", "stop", "bye", "indeed"]
TITLES = ["Captain", "Doctor", "Chef", "Boss", "Professor", "Champion"]
PERSONAS = ["Otto", "Ruby", "Milo", "Iris", "Hugo", "Luna", "Nemo", "Vera", "Pico", "Juno"]
COLORS = ["red", "blue", "green", "black", "white", "brown", "pink", "gray"]

VOWELS = "aeiou"
CONSONANTS = "bcdfghklmnprstvz"


def pseudo_word(rng, least=4, most=8):
    """Pronounceable letters that no tokenizer knows."""
    length = rng.randint(least, most)
    start = rng.randint(0, 1)
    return "".join(rng.choice(CONSONANTS if (i + start) % 2 else VOWELS) for i in range(length))


def pseudo_name(rng):
    return pseudo_word(rng, 4, 7).capitalize()
